//! Negotiations, option by option, and with arbitrary bytes.

use super::super::fields::Fields;
use super::super::wire::{option, transmission_flag};
use super::*;
use crate::disk::MemoryDisk;
use ogee_proto::unit::ByteLen;
use proptest::prelude::*;

fn exports() -> Exports<MemoryDisk> {
    let exports = Exports::new();
    let size = ByteLen::new(1 << 20);
    exports
        .add("disk", "a test", Rc::new(MemoryDisk::new(size)))
        .expect("a free name");
    let disk = MemoryDisk::read_only(size);
    exports
        .add("image", "", Rc::new(disk))
        .expect("a free name");
    exports
}

fn handshake() -> Handshake<MemoryDisk> {
    Handshake::new(exports(), 3).expect("known flags")
}

/// Type and data of each reply.
fn replies(out: &[u8], code: u32) -> Vec<(u32, Vec<u8>)> {
    let mut fields = Fields::new(out);
    let mut replies = Vec::new();
    while !fields.is_empty() {
        assert_eq!(fields.u64(), Ok(OPTION_REPLY_MAGIC));
        assert_eq!(fields.u32(), Ok(code));
        let kind = fields.u32().expect("a whole reply");
        replies.push((kind, fields.counted().expect("a whole reply").to_vec()));
    }
    replies
}

fn ask(handshake: &mut Handshake<MemoryDisk>, code: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut out = Vec::new();
    let verdict = handshake.answer(code, data, &mut out).expect("an answer");
    assert!(matches!(verdict, Verdict::Continue));
    replies(&out, code)
}

fn kinds(replies: &[(u32, Vec<u8>)]) -> Vec<u32> {
    replies.iter().map(|(kind, _)| *kind).collect()
}

fn counted(text: &str) -> Vec<u8> {
    [&length(text.len()).to_be_bytes(), text.as_bytes()].concat()
}

fn describe(name: &str, infos: &[u16]) -> Vec<u8> {
    let mut data = counted(name);
    let count = u16::try_from(infos.len()).expect("few");
    data.extend_from_slice(&count.to_be_bytes());
    data.extend(infos.iter().flat_map(|info| info.to_be_bytes()));
    data
}

fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = counted(name);
    data.extend_from_slice(&length(queries.len()).to_be_bytes());
    data.extend(queries.iter().flat_map(|query| counted(query)));
    data
}

fn go(handshake: &mut Handshake<MemoryDisk>, name: &str) -> Session<MemoryDisk> {
    let mut out = Vec::new();
    let verdict = handshake.answer(option::GO, &describe(name, &[]), &mut out);
    match verdict {
        Ok(Verdict::Transmit(session)) => session,
        _ => panic!("GO did not lead to a transmission"),
    }
}

#[test]
fn unknown_client_flags_end_it() {
    let refused = Handshake::new(exports(), 4).err().expect("a refusal");
    assert!(matches!(refused, ConnectionError::ClientFlags(4)));
}

#[test]
fn info_tells_what_was_asked_for() {
    let mut handshake = handshake();
    let found = ask(
        &mut handshake,
        option::INFO,
        &describe("disk", &[3, 2, 1, 77]),
    );
    let infos: Vec<_> = found.iter().map(|(_, data)| data.get(..2)).collect();
    let expected: [Option<&[u8]>; 5] = [
        Some(&[0, 0]),
        Some(&[0, 1]),
        Some(&[0, 2]),
        Some(&[0, 3]),
        None,
    ];
    assert_eq!(infos, expected);
    assert_eq!(found[1].1[2..], *b"disk");
    assert_eq!(found[2].1[2..], *b"a test");
    assert_eq!(found[3].1[2..], [0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0]);
    let found = ask(&mut handshake, option::INFO, &describe("none", &[]));
    assert_eq!(kinds(&found), [option_reply::ERR_UNKNOWN]);
}

#[test]
fn flags_follow_the_disk_and_what_was_negotiated() {
    let mut handshake = handshake();
    let flags = |handshake: &mut Handshake<MemoryDisk>, name: &str| {
        let found = ask(handshake, option::INFO, &describe(name, &[]));
        u16::from_be_bytes([found[0].1[10], found[0].1[11]])
    };
    let writable = flags(&mut handshake, "disk");
    assert_eq!(writable & transmission_flag::SEND_DF, 0);
    assert_ne!(writable & transmission_flag::SEND_TRIM, 0);
    ask(&mut handshake, option::STRUCTURED_REPLY, &[]);
    let image = flags(&mut handshake, "image");
    assert_ne!(image & transmission_flag::SEND_DF, 0);
    assert_ne!(image & transmission_flag::READ_ONLY, 0);
    assert_eq!(image & transmission_flag::SEND_TRIM, 0);
}

#[test]
fn list_names_all_exports() {
    let found = ask(&mut handshake(), option::LIST, &[]);
    let (server, ack) = (option_reply::SERVER, option_reply::ACK);
    assert_eq!(kinds(&found), [server, server, ack]);
    assert_eq!(found[0].1, [counted("disk"), b"a test".to_vec()].concat());
}

#[test]
fn tls_and_unknown_options_are_unsupported() {
    for code in [option::STARTTLS, 4, 11, 0xffff_ffff] {
        let found = ask(&mut handshake(), code, b"data");
        assert_eq!(kinds(&found), [option_reply::ERR_UNSUP], "{code}");
    }
}

#[test]
fn a_context_holds_for_the_export_it_was_chosen_for() {
    let mut handshake = handshake();
    let choice = contexts("disk", &["base:allocation", "other:thing"]);
    let found = ask(&mut handshake, option::SET_META_CONTEXT, &choice);
    assert_eq!(
        kinds(&found),
        [option_reply::ERR_INVALID],
        "not structured yet"
    );
    ask(&mut handshake, option::STRUCTURED_REPLY, &[]);
    let found = ask(&mut handshake, option::SET_META_CONTEXT, &choice);
    assert_eq!(
        kinds(&found),
        [option_reply::META_CONTEXT, option_reply::ACK]
    );
    assert!(go(&mut handshake, "disk").has_status);
    assert!(!go(&mut handshake, "image").has_status);
    // Whatever the next choice comes to, the former one is void.
    ask(&mut handshake, option::SET_META_CONTEXT, b"bad");
    assert!(!go(&mut handshake, "disk").has_status);
}

#[test]
fn contexts_can_be_listed_by_wildcard() {
    let mut handshake = handshake();
    ask(&mut handshake, option::STRUCTURED_REPLY, &[]);
    for (queries, count) in [
        (&[][..], 1),
        (&["base:"], 1),
        (&["base:else"], 0),
        (&["x:"], 0),
    ] {
        let found = ask(
            &mut handshake,
            option::LIST_META_CONTEXT,
            &contexts("disk", queries),
        );
        assert_eq!(found.len() - 1, count, "{queries:?}");
    }
    let found = ask(
        &mut handshake,
        option::SET_META_CONTEXT,
        &contexts("disk", &["base:"]),
    );
    assert_eq!(
        kinds(&found),
        [option_reply::ACK],
        "a wildcard chooses nothing"
    );
}

#[test]
fn export_name_answers_with_or_without_padding() {
    for (flags, len) in [(1, 8 + 2 + 124), (3, 8 + 2)] {
        let mut handshake = Handshake::new(exports(), flags).expect("known flags");
        let mut out = Vec::new();
        let verdict = handshake.answer(option::EXPORT_NAME, b"disk", &mut out);
        assert!(matches!(verdict, Ok(Verdict::Transmit(_))));
        assert_eq!(out.len(), len);
    }
    let verdict = handshake().answer(option::EXPORT_NAME, b"none", &mut Vec::new());
    assert!(matches!(verdict, Err(ConnectionError::NoSuchExport)));
}

#[test]
fn abort_is_acknowledged() {
    let mut out = Vec::new();
    let verdict = handshake().answer(option::ABORT, b"bye", &mut out);
    assert!(matches!(verdict, Ok(Verdict::End)));
    assert_eq!(kinds(&replies(&out, option::ABORT)), [option_reply::ACK]);
}

proptest! {
    /// Whatever the data, an option ends in one final reply, a session or the end.
    #[test]
    fn arbitrary_options_are_answered(
        options in prop::collection::vec((0_u32..13, prop::collection::vec(any::<u8>(), 0..64)), 1..20),
    ) {
        let mut handshake = handshake();
        for (code, data) in options {
            let mut out = Vec::new();
            let verdict = handshake.answer(code, &data, &mut out);
            if code == option::EXPORT_NAME || verdict.is_err() {
                continue;
            }
            let found = replies(&out, code);
            let is_final = |kind: u32| kind == option_reply::ACK || kind >> 31 == 1;
            let finals = found.iter().filter(|(kind, _)| is_final(*kind)).count();
            prop_assert_eq!(finals, 1);
            prop_assert!(found.last().is_some_and(|(kind, _)| is_final(*kind)));
        }
    }

    /// The same with data that is nearly right.
    #[test]
    fn distorted_options_are_answered(
        code in 6_u32..11,
        is_contexts: bool,
        cut in 0_usize..40,
        at in 0_usize..40,
        with: u8,
    ) {
        let mut handshake = handshake();
        ask(&mut handshake, option::STRUCTURED_REPLY, &[]);
        let mut data = match is_contexts {
            true => contexts("disk", &["base:allocation", "base:"]),
            false => describe("disk", &[0, 1, 2, 3]),
        };
        if let Some(byte) = data.get_mut(at) {
            *byte = with;
        }
        data.truncate(data.len().saturating_sub(cut));
        let mut out = Vec::new();
        let verdict = handshake.answer(code, &data, &mut out);
        prop_assert!(verdict.is_ok());
        prop_assert!(!replies(&out, code).is_empty());
    }
}
