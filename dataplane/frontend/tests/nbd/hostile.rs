//! Clients that send whatever they like: the server neither dies nor hangs.

use crate::client::{Client, counted, option, request};
use crate::served::Local;
use ogee_runtime::executor::block_on;
use ogee_runtime::net::UnixStream;
use ogee_runtime::{sleep, timeout};
use proptest::prelude::*;
use std::time::Duration;

/// Far more than any case takes; a hang shows as this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends `bytes` to a fresh server as a whole, after a session is agreed on if `is_agreed`, reads
/// all answers, and checks that the server has got rid of the client and still serves.
fn send(bytes: &[u8], is_agreed: bool) {
    block_on(async {
        let local = Local::new(1 << 20).await;
        let (mut read, mut write) = match is_agreed {
            true => {
                let client = Client::structured(&local.path).await;
                (client.read, client.write)
            }
            false => UnixStream::connect(&local.path)
                .await
                .expect("a server")
                .into_split(),
        };
        let sending = async {
            // The server may have hung up already.
            let _ = write.write_all(bytes).await;
            let _ = write.shutdown().await;
        };
        let reading = async {
            let mut buffer = vec![0; 64 << 10];
            while !matches!(read.read(&mut buffer).await, Ok(0) | Err(_)) {}
        };
        let both = futures_util::future::join(sending, reading);
        timeout(PATIENCE, both).await.expect("the connection ends");
        let gone = async {
            while local.server.connections() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, gone)
            .await
            .expect("the client is forgotten");
        let mut next = Client::simple(&local.path).await;
        assert_eq!(next.read(0, 1).await.len(), 1);
    });
}

/// Data of an option: nothing, noise, or nearly what belongs there.
fn option_data() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![Just("disk"), Just(""), Just("none")];
    prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..40),
        (name.clone(), prop::collection::vec(any::<u8>(), 0..8)).prop_map(|(name, rest)| [
            counted(name),
            rest
        ]
        .concat()),
        (name, any::<u32>()).prop_map(|(name, count)| {
            [
                counted(name),
                count.to_be_bytes().to_vec(),
                counted("base:allocation"),
            ]
            .concat()
        }),
    ]
}

fn negotiation() -> impl Strategy<Value = Vec<u8>> {
    let option = (0_u32..13, option_data(), 0_u8..20).prop_map(|(code, data, luck)| {
        let mut raw = option(code, &data);
        if luck == 0 {
            // Says that far more follows than does.
            raw[12] = 0xff;
        }
        raw
    });
    let flags = prop_oneof![9 => 0_u32..4, 1 => any::<u32>()];
    (flags, prop::collection::vec(option, 0..12))
        .prop_map(|(flags, options)| [flags.to_be_bytes().to_vec(), options.concat()].concat())
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    let at = prop_oneof![3 => 0_u64..1 << 20, 1 => any::<u64>()];
    let len = prop_oneof![4 => 0_u32..10_000, 1 => 0_u32..1 << 26, 1 => any::<u32>()];
    let flags = prop_oneof![3 => Just(0), 1 => 0_u16..32, 1 => any::<u16>()];
    let kind = prop_oneof![9 => 0_u16..9, 1 => any::<u16>()];
    let one = (kind, flags, at, len, 0_u8..10, any::<u64>()).prop_map(
        |(kind, flags, at, len, luck, cookie)| {
            let mut raw = request(kind, flags, cookie, at, len);
            if kind == 1 && luck > 0 && len < 10_000 {
                raw.resize(raw.len() + len as usize, luck);
            }
            raw
        },
    );
    prop::collection::vec(one, 0..40).prop_map(|requests| requests.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn noise_instead_of_a_negotiation(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        send(&bytes, false);
    }

    #[test]
    fn a_negotiation_gone_wrong(bytes in negotiation(), more in requests()) {
        send(&[bytes, more].concat(), false);
    }

    #[test]
    fn requests_gone_wrong(bytes in requests(), noise in prop::collection::vec(any::<u8>(), 0..60)) {
        send(&[bytes, noise].concat(), true);
    }
}
