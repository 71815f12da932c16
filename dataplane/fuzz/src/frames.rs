//! Frames of a peer: the first bytes say how they arrive, the rest is what arrives.
//!
//! Noise hardly ever has a matching checksum, so that mostly frames are made of the input: with
//! fields of its choice, and lengths and checksums that are right unless it says otherwise.

use crate::script::Script;
use ogee_proto::checksum::crc32c;
use ogee_proto::limit::FRAME_HEADER_SIZE;
use ogee_proto::wire::{FRAME_MAGIC, FrameHeader, FrameKind, WIRE_VERSION};
use ogee_transport::fuzzing::{Decoded, decode, decode_hello, encode, encode_hello};

/// Frames of one input.
const FRAMES_MAX: usize = 8;
/// Bytes of one body: the decoder treats 64 KiB and more in its own way.
const BODY_MAX: usize = 80 << 10;

/// One input.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let (how, pieces) = (script.byte(), script.bytes(8));
    let stream = if how & 1 == 0 {
        made(&mut script)
    } else {
        script.rest().to_vec()
    };
    let expects_hello = how & 2 != 0;
    let whole = decode(&stream, expects_hello, || usize::MAX);
    let mut turn = 0;
    let cut = decode(&stream, expects_hello, || {
        turn += 1;
        let piece = pieces.get(turn % 8).map_or(1, |piece| usize::from(*piece));
        if piece < 200 { 1 + piece } else { piece * 256 }
    });
    check(&stream, &whole);
    same(&whole, &cut);
    check_parts(&stream);
}

/// What is decoded encodes to the bytes that it was decoded from.
fn check(stream: &[u8], decoded: &Decoded) {
    let mut at = 0;
    if let Some(hello) = &decoded.hello {
        let encoded = encode_hello(hello);
        let said = decode(&encoded, true, || usize::MAX);
        assert_eq!(said.hello.as_ref(), Some(hello));
        at = FRAME_HEADER_SIZE + header(stream).map_or(0, |header| header.body_len());
    }
    for frame in &decoded.frames {
        let encoded = encode(frame);
        assert_eq!(stream.get(at..at + encoded.len()), Some(&encoded[..]));
        at += encoded.len();
    }
}

fn header(stream: &[u8]) -> Option<FrameHeader> {
    FrameHeader::decode(stream).ok()
}

/// The pieces in which a stream arrives do not matter.
fn same(whole: &Decoded, cut: &Decoded) {
    assert_eq!(whole.hello, cut.hello);
    assert_eq!(whole.error, cut.error);
    assert_eq!(whole.frames.len(), cut.frames.len());
    for (a, b) in whole.frames.iter().zip(&cut.frames) {
        assert_eq!((a.header, &a.meta), (b.header, &b.meta));
        assert!(a.payload == b.payload, "payload of {:?}", a.header);
    }
}

/// The parts by themselves, without checksums in the way.
fn check_parts(stream: &[u8]) {
    if let Ok(header) = FrameHeader::decode(stream) {
        assert_eq!(header.encode()[..], stream[..FRAME_HEADER_SIZE]);
    }
    if let Ok(hello) = decode_hello(stream) {
        let body = &encode_hello(&hello)[FRAME_HEADER_SIZE..];
        // A longer name than we would send is cut when it is said again.
        assert!(body == stream || hello.name.len() > body.len() - 14);
    }
}

/// A stream of frames.
fn made(script: &mut Script<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..1 + script.below(FRAMES_MAX) {
        if script.is_over() {
            break;
        }
        push_frame(script, &mut stream);
    }
    // The beginning of one more, perhaps.
    stream.extend_from_slice(script.bytes(64));
    stream
}

fn push_frame(script: &mut Script<'_>, stream: &mut Vec<u8>) {
    let (faults, size) = (script.byte(), script.byte());
    let mut header = [0; FRAME_HEADER_SIZE];
    let fields = script.bytes(16);
    header[8..8 + fields.len()].copy_from_slice(fields);
    header[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
    header[4..6].copy_from_slice(&WIRE_VERSION.to_le_bytes());
    let kinds = FrameKind::ALL;
    header[6] = match script.byte() {
        byte if faults & 1 != 0 => byte,
        byte => kinds[usize::from(byte) % kinds.len()].encode(),
    };
    let body = body(script, size);
    let meta_len = script.place(body.len() + 1).min(256 << 10);
    put32(&mut header, 88, meta_len);
    put32(&mut header, 92, body.len() - meta_len);
    header[96..100].copy_from_slice(&crc32c(&body).to_le_bytes());
    if faults & 2 != 0 {
        // Any byte of the header, before it is sealed.
        header[script.below(124)] = script.byte();
    }
    let crc = crc32c(&header[..124]);
    header[124..].copy_from_slice(&crc.to_le_bytes());
    if faults & 12 == 12 {
        header[script.below(128)] ^= 1;
    }
    let start = stream.len();
    stream.extend_from_slice(&header);
    stream.extend_from_slice(&body);
    if faults & 48 == 48 {
        let at = start + script.place(stream.len() - start);
        stream[at] ^= 1;
    }
}

fn body(script: &mut Script<'_>, size: u8) -> Vec<u8> {
    match size {
        // Long ones repeat a byte: they cost no input.
        250.. => vec![size; (64 << 10) + script.place(BODY_MAX - (64 << 10))],
        200..250 => vec![size; script.place(24 << 10)],
        _ => script.bytes(usize::from(size)).to_vec(),
    }
}

fn put32(bytes: &mut [u8], at: usize, value: usize) {
    let value = u32::try_from(value).expect("bounded above");
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
