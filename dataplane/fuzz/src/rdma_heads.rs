//! What messages over RDMA say of themselves: noise, or fields of the input's choice under a checksum that is right.

use crate::script::Script;
use ogee_proto::checksum::crc32c;
use ogee_proto::wire::WireError;
use ogee_transport::fuzzing::decode_rdma_prefix;

/// Bytes of it, the checksum last.
const LEN: usize = 32;
/// Kinds and flags that there are: docs/rdma.md.
const KINDS: std::ops::RangeInclusive<u8> = 1..=4;
const FLAGS: u8 = 31;

/// One input.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let how = script.byte();
    let mut bytes = script.bytes(LEN + 8).to_vec();
    if how & 1 == 0 && bytes.len() >= LEN {
        let crc = crc32c(&bytes[..LEN - 4]).to_le_bytes();
        bytes[LEN - 4..LEN].copy_from_slice(&crc);
    }
    check(&bytes);
    if how & 2 != 0 && bytes.len() >= LEN {
        // One bit of what was good is not.
        let at = script.below(LEN);
        bytes[at] ^= 1 << (script.byte() & 7);
        check(&bytes);
    }
}

/// It is taken if and only if it is what docs/rdma.md says, and then it is what was sent.
fn check(bytes: &[u8]) {
    let decoded = decode_rdma_prefix(bytes);
    let Some(sent) = bytes.get(..LEN) else {
        assert!(
            matches!(decoded, Err(WireError::Truncated { .. })),
            "{decoded:?}"
        );
        return;
    };
    let is_sealed = crc32c(&sent[..LEN - 4]).to_le_bytes() == sent[LEN - 4..];
    let is_known = KINDS.contains(&sent[0]) && sent[1] & !FLAGS == 0;
    match decoded {
        Ok(again) => assert!(is_sealed && is_known && again == sent),
        Err(WireError::HeaderCrc { .. }) => assert!(!is_sealed),
        Err(WireError::Field { .. }) => assert!(is_sealed && !is_known),
        Err(other) => panic!("{other}"),
    }
}
