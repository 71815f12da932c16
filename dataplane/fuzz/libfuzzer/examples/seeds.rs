//! Writes the inputs that fuzzing begins from: `scripts/fuzz --seeds`.
//!
//! What the golden files hold still, pages of a real store, records of a real state, and for the targets
//! that read their input as a list of decisions a few lists of any. Inputs that fuzzing found itself are
//! added by `scripts/fuzz --merge`.

// Gives the instrumented code its runtime.
use libfuzzer_sys as _;

use ogee_control::state::{Command, State};
use ogee_device::Device;
use ogee_proto::id::{ChunkIndex, ChunkKey, CopysetId, LogId, StoreId, VolumeId};
use ogee_proto::unit::{BlockIndex, ByteLen, ByteOffset};
use ogee_runtime::Payload;
use ogee_runtime::executor::block_on_seeded;
use ogee_store::{BlockChange, GroupCheckpoint, Store, StoreParams, WriteBack};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use uuid::Uuid;

const PAGE: usize = 4096;

fn main() {
    for target in [
        "frames",
        "log_recovery",
        "store_open",
        "nbd",
        "rdma_heads",
        "virtqueue",
        "mds_commands",
    ] {
        for number in 0..24 {
            put(
                target,
                &format!("any-{number:02}"),
                &any(number, 40 + number * 12),
            );
        }
    }
    golden_headers();
    rdma_heads();
    golden_messages();
    copy_steps();
    store_pages();
    nbd();
    virtqueue();
    mds_records();
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn put(target: &str, name: &str, bytes: &[u8]) {
    let folder = root().join("corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(format!("seed-{name}")), bytes).expect("a file");
}

/// Each kind of message, with each flag.
fn rdma_heads() {
    for kind in 1..=4_u8 {
        for flag in 0..6 {
            // Sealed, then damaged.
            let mut input = vec![2, kind, if flag == 5 { 0 } else { 1 << flag }];
            input.extend((0..40).map(|at| kind * 40 + at));
            put("rdma_heads", &format!("kind-{kind}-{flag}"), &input);
        }
    }
}

/// Noise, the same every time.
fn any(seed: usize, len: usize) -> Vec<u8> {
    let mut state = seed as u64;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (word ^ word >> 27).to_le_bytes()[3]
    });
    bytes.take(len).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks_exact(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16);
    pairs.map(|pair| byte(pair).expect("hex")).collect()
}

/// Rings that a proper driver has made: requests of each kind, direct and in tables.
fn virtqueue() {
    for (number, kind) in [0_u32, 1, 4, 8, 11, 13].into_iter().enumerate() {
        for is_indirect in [false, true] {
            let mut image = vec![0; 4096];
            let table = if is_indirect { 1024 } else { 0 };
            let into = if matches!(kind, 0 | 8) { 2 } else { 0 };
            let len = if matches!(kind, 11 | 13) { 16 } else { 512 };
            // Header, data, status: where, how long, flags; each is followed by the next.
            let chain = [(2048, 16, 1), (2560, len, 1 | into), (2056, 1, 2)];
            for (index, (at, len, flags)) in (0_u16..).zip(chain) {
                let raw = &mut image[table + 16 * usize::from(index)..][..16];
                raw[..8].copy_from_slice(&u64::to_le_bytes(at));
                raw[8..12].copy_from_slice(&u32::to_le_bytes(len));
                raw[12..14].copy_from_slice(&u16::to_le_bytes(flags));
                raw[14..].copy_from_slice(&(index + 1).to_le_bytes());
            }
            if is_indirect {
                image[..8].copy_from_slice(&1024_u64.to_le_bytes());
                image[8..12].copy_from_slice(&48_u32.to_le_bytes());
                image[12..14].copy_from_slice(&4_u16.to_le_bytes());
            }
            // Eight entries; the available part at 128, the used one at 256.
            image[130..132].copy_from_slice(&1_u16.to_le_bytes());
            image[2048..2052].copy_from_slice(&kind.to_le_bytes());
            let head = [3, u8::from(is_indirect), 0, 0, 8, 0, 16, 0];
            put(
                "virtqueue",
                &format!("ring-{number}-{is_indirect}"),
                &[&head[..], &image].concat(),
            );
        }
    }
}

fn golden_headers() {
    for name in ["ping", "reply", "write"] {
        let path = root().join(format!("../../proto/tests/golden/header-v3-{name}.hex"));
        let text = fs::read_to_string(path).expect("a golden file");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let header = from_hex(&lines.collect::<String>());
        // As it is, in pieces.
        put("frames", name, &[&[1][..], &[40; 8], &header].concat());
    }
}

/// Kind, length of the payload, payload, structured part.
fn message(name: &str, kind: u8, payload: &[u8], meta: &[u8]) {
    let len = u16::try_from(payload.len()).expect("short").to_le_bytes();
    put(
        "group_messages",
        name,
        &[&[kind][..], &len, payload, meta].concat(),
    );
}

fn golden_messages() {
    let path = root().join("../group/tests/golden/group.txt");
    let text = fs::read_to_string(path).expect("a golden file");
    let mut messages: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        match line.strip_prefix("  ") {
            Some(row) => messages.entry(name).or_default().extend(from_hex(row)),
            None => name = line,
        }
    }
    for (name, meta) in &messages {
        let file = name.replace(' ', "-");
        match *name {
            "append" => message(&file, 0, &[7; PAGE], meta),
            "append matched" | "append conflict" | "append higher vote" => {
                message(&file, 1, &[], meta);
            }
            "vote request" | "vote response" | "transfer" => message(&file, 2, &[], meta),
            "command head" => message(&file, 4, &[], &[&[1][..], meta].concat()),
            "checkpoint" => {
                message(&file, 5, &[], meta);
                // Behind its header a membership with its log id, and then without.
                message("stored-membership", 3, &[], &meta[16..]);
                message("membership", 3, &[], &meta[33..]);
                message("membership-head", 4, &[], &[&[2][..], &meta[33..]].concat());
            }
            "beats" | "beats refused" => message(&file, 7, &[], meta),
            _ => message(&file, 8, &[], meta),
        }
    }
    message("requests", 9, &[], &any(5, 300));
}

/// The steps of a copy, and an answer with an entry.
fn copy_steps() {
    let log_id = [&[1][..], &4_u64.to_le_bytes(), &6_u64.to_le_bytes()].concat();
    let none = [0; 17];
    let vote = [&4_u64.to_le_bytes()[..], &161_u64.to_le_bytes(), &[1]].concat();
    let tail = [
        &100_u32.to_le_bytes()[..],
        &[9; 4],
        &3_u32.to_le_bytes(),
        &5_u32.to_le_bytes(),
        &[0; 8],
    ]
    .concat();
    let begin = [&vote[..], &log_id, &none, &[0, 0], &tail].concat();
    message("copy-begin", 6, &[], &begin);
    message("copy-state", 6, &[5; 100], &[0; 4]);
    message("copy-chunks", 6, &[1; 24], &[]);
    let masks = [&[8, 0][..], &7_u32.to_le_bytes(), &2_u32.to_le_bytes()].concat();
    message("copy-blocks", 6, &[3; PAGE], &masks);
    message("copy-pieces", 6, &[3; 2 * PAGE], &masks.repeat(2));
    message("copy-token", 6, &[], &[6; 8]);
    message("copy-zeros", 6, &[], &[8, 0, 100, 0]);
    message("copy-end", 6, &[], &log_id);
    let entry = [
        &[4; 16][..],
        &[1, 4, 0],
        &16_u32.to_le_bytes(),
        &[1; 8],
        b"head",
    ];
    let found = [&none[..], &log_id, &1_u32.to_le_bytes(), &entry.concat()].concat();
    message("entries-answer", 8, &[2; 16], &found);
}

/// The pages of a store with something of everything in it.
fn store_pages() {
    block_on_seeded(1, async {
        let device = Device::memory(ByteLen::new(30 << 20));
        let params = StoreParams {
            store: StoreId::from_bytes([7; 16]),
            cluster: Uuid::from_bytes([1; 16]),
            log_len: ByteLen::new(1 << 20),
            force: true,
        };
        Store::format(&device, params).await.expect("formatted");
        let store = Store::open(&device).await.expect("opened");
        let key = ChunkKey {
            volume: VolumeId::new(1),
            chunk: ChunkIndex::new(2),
        };
        let copyset = CopysetId::new(3);
        let change = |at| WriteBack {
            key,
            block: BlockIndex::new(at).expect("within the chunk"),
            what: BlockChange::Data(Payload::from(vec![9; PAGE])),
        };
        let changes = [0, 1, 40].map(change).to_vec();
        store.write_back(copyset, changes).await.expect("written");
        let state = GroupCheckpoint {
            copyset,
            applied: LogId::new(1, 2),
            state: vec![5; 100].into(),
        };
        store.checkpoint(vec![state]).await.expect("a checkpoint");
        let page = async |at| {
            let read = device.read(ByteOffset::new(at), ByteLen::from_usize(PAGE));
            read.await.expect("read").to_vec()
        };
        put(
            "store_pages",
            "superblock",
            &[&[0][..], &page(0).await].concat(),
        );
        let (start, len) = store.log_region();
        let start = start.get() + len.get();
        for slot in 0..8 {
            let page = page(start + slot * PAGE as u64).await;
            // As on the medium: 1 leaf, 2 group, 3 table, 4 root.
            let kind = match page[10] {
                1 => 3,
                2 => 4,
                3 => 2,
                4 => 1,
                _ => continue,
            };
            put(
                "store_pages",
                &format!("kind-{kind}"),
                &[&[kind][..], &page].concat(),
            );
            put("store_pages", "header", &[&[5][..], &page[..64]].concat());
        }
    });
}

fn nbd() {
    let request = |kind: u8, at: u8, len: u16| {
        let mut raw = vec![0x25, 0x60, 0x95, 0x13, 0, 0, 0, kind];
        raw.extend([1; 8]);
        raw.extend([0, 0, 0, 0, 0, 0, at, 0]);
        raw.extend(u32::from(len).to_be_bytes());
        raw
    };
    let option = |code: u8, data: &[u8]| {
        let len = u32::try_from(data.len()).expect("short").to_be_bytes();
        [&b"IHAVEOPT"[..], &[0, 0, 0, code], &len, data].concat()
    };
    let all: Vec<u8> = (0..8).flat_map(|kind| request(kind, 16, 0)).collect();
    let write = [
        request(1, 1, 5),
        vec![1; 5],
        request(0, 1, 9),
        request(2, 0, 0),
    ]
    .concat();
    // Two bytes choose kind and seed: after a whole negotiation, and before one.
    put("nbd", "requests", &[&[14, 1][..], &all].concat());
    put("nbd", "write", &[&[14, 2][..], &write].concat());
    let options: Vec<u8> = (1..11).flat_map(|code| option(code, &[0; 6])).collect();
    put("nbd", "options", &[&[2, 3][..], &options].concat());
    put(
        "nbd",
        "export-name",
        &[&[2, 4][..], &option(1, b"disk"), &write].concat(),
    );
    put("nbd", "greeting", &[0, 5, 0, 0, 0, 3]);
}

fn mds_records() {
    let mut number = 0;
    let mut record = |kind: u8, text: &str| {
        number += 1;
        put(
            "mds_records",
            &format!("{kind}-{number:02}"),
            &[&[kind][..], text.as_bytes()].concat(),
        );
    };
    let (id, vote) = (
        r#"{"term":3,"index":9}"#,
        r#"{"term":3,"voted_for":2,"committed":true}"#,
    );
    let membership = r#"{"configs":[[1,2,3]],"nodes":{"1":"a:1","2":"b:1","3":"c:1"}}"#;
    record(0, id);
    record(0, vote);
    let mut entries = vec![
        format!(r#"{{"id":{id},"payload":"Blank"}}"#),
        format!(r#"{{"id":{id},"payload":{{"Membership":{membership}}}}}"#),
    ];
    let commands = commands();
    for command in &commands {
        entries.push(format!(
            r#"{{"id":{id},"payload":{{"Command":{command}}}}}"#
        ));
    }
    entries.iter().for_each(|entry| record(1, entry));
    record(
        2,
        &format!(
            r#"{{"vote":{vote},"previous":{id},"committed":null,"entries":[{}]}}"#,
            entries[0]
        ),
    );
    record(3, r#""Success""#);
    record(3, &format!(r#"{{"Partial":{id}}}"#));
    record(3, &format!(r#"{{"HigherVote":{vote}}}"#));
    record(
        4,
        &format!(r#"{{"vote":{vote},"last":{id},"transfer":false}}"#),
    );
    record(
        4,
        &format!(r#"{{"vote":{vote},"last":null,"granted":true}}"#),
    );
    record(5, &format!(r#"{{"vote":{vote}}}"#));
    let mut state = State::default();
    for command in &commands {
        let command: Command = serde_json::from_str(command).expect("a command");
        // Some are refused, which is as good.
        let _ = state.apply(&command);
    }
    let state = serde_json::to_string(&state).expect("JSON");
    let snapshot = format!(
        r#"{{"last":{id},"membership_id":{id},"membership":{membership},"state":{state}}}"#
    );
    record(6, &format!(r#"{{"vote":{vote},"snapshot":{snapshot}}}"#));
    record(7, &format!("{snapshot}\n{}", commands.join("\n")));
}

/// One of each kind that matters, so that there is something of everything.
fn commands() -> Vec<String> {
    let store = |n: u8| format!("{}", Uuid::from_bytes([n; 16]));
    let mut commands = vec![format!(
        r#"{{"do":"InitCluster","id":"{}","name":"c"}}"#,
        store(9)
    )];
    for n in 1..=3 {
        let spec = format!(
            r#"{{"id":"{}","shard":0,"path":"/d","capacity":1000000,"log_capacity":1000}}"#,
            store(n)
        );
        commands.push(format!(
            r#"{{"do":"RegisterChunkserver","name":"s{n}","zone":"z{n}","server":"s{n}","endpoints":["h:{n}"],"stores":[{spec}],"version":"1"}}"#
        ));
    }
    let placement = format!(r#"["{}","{}","{}"]"#, store(1), store(2), store(3));
    commands.extend([
        r#"{"do":"CreatePool","name":"p","replicas":3}"#.to_owned(),
        format!(r#"{{"do":"CreateCopysets","pool":1,"existing":0,"placements":[{placement}]}}"#),
        r#"{"do":"ConfirmReplicas","created":[[1,1]],"formed":[1]}"#.to_owned(),
        r#"{"do":"CreateVolume","name":"v","pool":"p","size":67108864,"stripe":{"unit":65536,"count":4},"replicas":0,"owner":"o","created_unix_ms":5}"#.to_owned(),
        r#"{"do":"ResizeVolume","name":"v","size":134217728}"#.to_owned(),
        r#"{"do":"Attach","name":"v","host":"h","read_only":false}"#.to_owned(),
        r#"{"do":"Detach","name":"v","client":1,"epoch":1,"force":true}"#.to_owned(),
        r#"{"do":"ConfirmChanges","changed":[[1,4]],"removed":[[1,2]]}"#.to_owned(),
    ]);
    commands
}
