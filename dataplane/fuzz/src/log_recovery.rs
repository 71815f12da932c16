//! The log: calls make a valid one, its medium is damaged, and it is opened.
//!
//! The first byte chooses what happens to the medium:
//! * *power cut*: calls are on their way, power fails, and of the sectors that were being written each
//!   may be old, new or noise. Every group must be in a state that it had, not before the last one
//!   reported durable, and nothing may count as damaged.
//! * *damage*: the log was closed, then its medium is changed anywhere but in the last batch (which
//!   the format cannot tell from a torn tail when the one before it is gone as well). What was durable
//!   must be found, or be said to be lost.
//! * *forgery*: headers and records are changed and their checksums made to match. No panic.
//!
//! In each case a second opening must say what the first one did.

use crate::damage::{PAGE, SECTOR, damage};
use crate::script::Script;
use bytes::Bytes;
use ogee_device::{Device, MemoryControl, Survivors};
use ogee_log::format::{BATCH_MAGIC, SEGMENT_MAGIC};
use ogee_log::{Completion, Damage, Entry, GroupLog, GroupState, Log, LogError};
use ogee_log::{LogOptions, LogRegion, Vote};
use ogee_proto::checksum::{crc32c, crc32c_append};
use ogee_proto::id::{CopysetId, LogId, LogIndex, StoreId};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::executor::block_on_seeded;
use ogee_runtime::{Buffer, Payload, spawn, yield_now};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

const STORE: StoreId = StoreId::from_bytes(*b"store of fuzzing");
const SEGMENT: usize = 64 << 10;
const SEGMENTS: usize = 8;
const LEN: usize = SEGMENTS * SEGMENT;
/// The region does not begin where the device does.
const START: u64 = 8192;
const GROUPS: usize = 3;
/// Calls of one input.
const CALLS_MAX: usize = 40;
/// Contents of the medium that are kept, for writes that get lost.
const EARLIER_MAX: usize = 4;
const ALL: Range<LogIndex> = LogIndex::new(0)..LogIndex::new(u64::MAX);

/// One input.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let (kind, seed) = (script.below(4), u64::from(script.byte()));
    block_on_seeded(seed, async {
        let mut world = World::new().await;
        world.calls(&mut script).await;
        match kind {
            0 | 1 => world.power_cut(&mut script).await,
            2 => world.damage(&mut script).await,
            _ => world.forgery(&mut script).await,
        }
    });
}

/// What a group's log should be.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    vote: Option<u64>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// Term and pages of payload.
    entries: BTreeMap<u64, (u64, usize)>,
}

impl Model {
    fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.index.get() + 1)
    }

    fn append(&mut self, term: u64, pages: usize) {
        let index = self.next();
        self.entries.insert(index, (term, pages));
        self.last = Some(LogId::new(term, index));
    }

    fn truncate_after(&mut self, index: u64) {
        self.entries.retain(|entry, _| *entry <= index);
        let last = self.entries.last_key_value();
        let last = last.map(|(index, (term, _))| LogId::new(*term, *index));
        self.last = last.or(self.purged);
    }

    fn purge(&mut self, upto: LogId) {
        if self.purged.is_none_or(|purged| purged.index < upto.index) {
            self.entries.retain(|entry, _| *entry > upto.index.get());
            self.purged = Some(upto);
            if self.last.is_none_or(|last| last.index <= upto.index) {
                self.last = Some(upto);
            }
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let entries = self.entries.iter();
        entries
            .map(|(index, (term, pages))| entry(LogId::new(*term, *index), *pages))
            .collect()
    }

    fn is(&self, state: &GroupState, entries: &[Entry]) -> bool {
        let expected = self.entries();
        (self.vote.map(vote), self.purged, self.last) == (state.vote, state.purged, state.last)
            && expected.len() == entries.len()
            && expected.iter().zip(entries).all(|(a, b)| same(a, b))
    }
}

/// Contents that tell where they belong.
fn entry(id: LogId, pages: usize) -> Entry {
    let mut data = vec![0; pages * PAGE];
    for (number, word) in data.chunks_exact_mut(8).enumerate() {
        let number = id.index.get() << 32 ^ id.term.get() << 16 ^ number as u64;
        word.copy_from_slice(&number.to_le_bytes());
    }
    let payload = Payload::from(data);
    Entry {
        id,
        kind: id.index.get().to_le_bytes()[0] % 7,
        head: Bytes::from(format!("head of {id}")),
        payload_crc: crc32c(&payload),
        payload,
    }
}

fn vote(term: u64) -> Vote {
    Vote {
        term,
        voted_for: term * 10,
        committed: term.is_multiple_of(2),
    }
}

fn same(a: &Entry, b: &Entry) -> bool {
    (a.id, a.kind, &a.head, a.payload_crc) == (b.id, b.kind, &b.head, b.payload_crc)
        && a.payload == b.payload
}

/// All states that a group went through, and which of them is durable at least.
#[derive(Default)]
struct History {
    states: Vec<Model>,
    durable: Rc<Cell<usize>>,
}

impl History {
    fn last(&self) -> Model {
        self.states.last().cloned().unwrap_or_default()
    }

    /// Marks the newest state as durable once called.
    fn mark(&self) -> impl Fn() + 'static {
        let (position, durable) = (self.states.len() - 1, Rc::clone(&self.durable));
        move || durable.set(durable.get().max(position))
    }
}

struct World {
    device: Device,
    control: MemoryControl,
    log: Log,
    histories: Vec<History>,
    term: u64,
    /// What the region once held.
    earlier: Vec<Vec<u8>>,
}

impl World {
    async fn new() -> Self {
        let (device, control) = Device::memory_with_control(ByteLen::from_usize(LEN + START_USIZE));
        let formatted = Log::format(&device, region(), options()).await;
        formatted.expect("memory is formatted");
        let log = open(&device).await.expect("an empty log opens");
        let history = || History {
            states: vec![Model::default()],
            durable: Rc::default(),
        };
        Self {
            device,
            control,
            log,
            histories: (0..GROUPS).map(|_| history()).collect(),
            term: 1,
            earlier: Vec::new(),
        }
    }

    /// Calls, each of which is durable before the next one begins.
    async fn calls(&mut self, script: &mut Script<'_>) {
        for _ in 0..script.below(CALLS_MAX + 1) {
            if script.is_over() {
                return;
            }
            if script.below(10) == 0 {
                self.remember().await;
                self.log.close().await.expect("memory does not fail");
                self.log = open(&self.device).await.expect("a closed log opens");
                continue;
            }
            let known: Vec<usize> = self.histories.iter().map(|it| it.states.len()).collect();
            let Some(done) = self.call(script) else {
                continue;
            };
            match done.await {
                Ok(()) => {}
                Err(LogError::Full { .. }) => {
                    // It was refused, so it changed nothing.
                    let histories = self.histories.iter_mut().zip(known);
                    histories.for_each(|(history, known)| history.states.truncate(known));
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn remember(&mut self) {
        if self.earlier.len() < EARLIER_MAX {
            self.earlier.push(image(&self.device).await);
        }
    }

    /// One call of one group; `None` if it means nothing now.
    fn call(&mut self, script: &mut Script<'_>) -> Option<Done> {
        let id = script.below(GROUPS);
        self.term += u64::from(script.below(8) == 0);
        let term = self.term;
        match script.below(12) {
            0..=5 => self.append(id, script),
            6 => self.change(id, |model| model.vote = Some(term)),
            7 => {
                let group = self.group(id);
                let committed = group.state().committed;
                let committed = committed.map_or(0, |committed| committed.index.get());
                let back = 1 + script.below(4) as u64;
                self.change(id, |model| {
                    let keep = model.next().saturating_sub(back).max(committed);
                    model.truncate_after(keep);
                })
            }
            8 => {
                let group = self.group(id);
                group
                    .last()
                    .into_iter()
                    .for_each(|last| group.save_committed(last));
                None
            }
            9 if script.below(4) == 0 => self.change(id, |model| *model = Model::default()),
            _ => {
                let behind = script.below(6) as u64;
                self.change(id, |model| {
                    if let Some(upto) = model.next().checked_sub(behind) {
                        model.purge(LogId::new(term, upto));
                    }
                })
            }
        }
    }

    fn group(&self, id: usize) -> GroupLog {
        self.log.group(group_id(id))
    }

    fn append(&mut self, id: usize, script: &mut Script<'_>) -> Option<Done> {
        let pages: Vec<usize> = (0..1 + script.below(4)).map(|_| script.below(4)).collect();
        if !self.log.has_space(pages.iter().map(|pages| pages * PAGE)) {
            return None;
        }
        let history = &mut self.histories[id];
        let first = history.last().next();
        for pages in pages {
            let mut state = history.last();
            state.append(self.term, pages);
            history.states.push(state);
        }
        let mark = history.mark();
        let mut entries = history.last().entries();
        entries.retain(|entry| entry.id.index.get() >= first);
        let (done, outcome) = ogee_runtime::channel::oneshot::channel();
        self.group(id).append(entries, move |result| {
            if result.is_ok() {
                mark();
            }
            // Nobody may wait for it.
            drop(done.send(result));
        });
        Some(Done::Append(outcome))
    }

    /// Applies `change` to the model and the call that means it to the log.
    fn change(&mut self, id: usize, change: impl FnOnce(&mut Model)) -> Option<Done> {
        let before = self.histories[id].last();
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return None;
        }
        let log = self.group(id);
        let completion = if after == Model::default() {
            self.log.remove_group(group_id(id))
        } else if after.vote != before.vote {
            log.save_vote(after.vote.map(vote).unwrap_or_default())
        } else if after.purged != before.purged {
            log.purge(after.purged.unwrap_or_default())
        } else {
            log.truncate_after(after.last.map(|last| last.index))
        };
        self.histories[id].states.push(after);
        Some(Done::Call(completion, Box::new(self.histories[id].mark())))
    }

    /// Power fails while calls are on their way.
    async fn power_cut(&mut self, script: &mut Script<'_>) {
        for _ in 0..1 + script.below(6) {
            if let Some(done) = self.call(script) {
                drop(spawn(async move { drop(done.await) }));
            }
            for _ in 0..script.below(4) {
                yield_now().await;
            }
        }
        // All at the same moment: nothing else runs until the copies are made.
        let (old, new) = (
            self.control.crash(Survivors::None).0,
            self.control.crash(Survivors::All).0,
        );
        let allowed: Vec<Range<usize>> = self.histories.iter().map(allowed).collect();
        let (old, mut new) = (image(&old).await, image(&new).await);
        tear(script, &old, &mut new);
        let device = device_of(&new).await;
        let mut said: Option<Vec<GroupState>> = None;
        for _ in 0..2 {
            let log = open(&device).await.expect("a power cut is no damage");
            for (id, allowed) in allowed.iter().enumerate() {
                self.check_cut(&log, id, allowed.clone()).await;
            }
            let found = states(&log);
            assert!(said.is_none_or(|said| said == found), "opened again");
            said = Some(found);
            log.close().await.expect("memory does not fail");
        }
    }

    async fn check_cut(&self, log: &Log, id: usize, allowed: Range<usize>) {
        let group = log.group(group_id(id));
        assert_eq!(group.damage(), None, "group {id}: a power cut is no damage");
        let entries = group.entries(ALL, usize::MAX).await.expect("all is there");
        let state = group.state();
        let states = &self.histories[id].states[allowed];
        let found = states.iter().any(|model| model.is(&state, &entries));
        assert!(found, "group {id}: {state:?} is none of {states:#?}");
    }

    /// The medium of a closed log is damaged.
    async fn damage(&mut self, script: &mut Script<'_>) {
        self.log.close().await.expect("memory does not fail");
        let mut image = image(&self.device).await;
        let batches = pages_with(&image, &BATCH_MAGIC);
        let Some(last) = batches.iter().max_by_key(|page| sequence(&image, **page)) else {
            return;
        };
        let (last, count) = (*last, 1 + script.below(6));
        let kept = image[last * PAGE..(last + 1) * PAGE].to_vec();
        let heads = pages_with(&image, &SEGMENT_MAGIC);
        for _ in 0..count {
            // Mostly where something stands.
            match script.below(3) {
                0 => damage(script, &mut image, &batches, &self.earlier),
                1 => damage(script, &mut image, &heads, &self.earlier),
                _ => {
                    let all: Vec<usize> = (0..LEN / PAGE).collect();
                    damage(script, &mut image, &all, &self.earlier)
                }
            };
        }
        image[last * PAGE..(last + 1) * PAGE].copy_from_slice(&kept);
        if let Some(log) = open_thrice(&device_of(&image).await, false).await {
            for (id, history) in self.histories.iter().enumerate() {
                check_damaged(&log, id, history).await;
                mend(&log, id, history).await;
                check_damaged(&log, id, history).await;
            }
        }
    }

    /// Checksums are made to match what they should not.
    async fn forgery(&mut self, script: &mut Script<'_>) {
        self.log.close().await.expect("memory does not fail");
        let mut image = image(&self.device).await;
        let batches = pages_with(&image, &BATCH_MAGIC);
        let heads = pages_with(&image, &SEGMENT_MAGIC);
        for _ in 0..1 + script.below(6) {
            let what = script.below(3);
            let places = if what == 0 { &heads } else { &batches };
            let Some(page) = places.get(script.place(places.len())) else {
                continue;
            };
            match what {
                0 => forge_segment(script, &mut image, *page),
                1 => forge_record(script, &mut image, *page),
                _ => forge_batch(script, &mut image, *page),
            }
        }
        if let Some(log) = open_thrice(&device_of(&image).await, true).await {
            for id in 0..GROUPS {
                let group = log.group(group_id(id));
                // Whatever comes of it: it is a value.
                drop(group.entries(ALL, 1 << 20).await);
                drop(group.linked_entries(ALL, 1 << 20).await);
            }
        }
    }
}

/// A call that is on its way.
enum Done {
    Append(ogee_runtime::channel::oneshot::Receiver<Result<(), LogError>>),
    Call(Completion, Box<dyn Fn()>),
}

impl Done {
    async fn wait(self) -> Result<(), LogError> {
        match self {
            Self::Append(outcome) => outcome.await.expect("the callback is called"),
            Self::Call(completion, mark) => {
                completion.await?;
                mark();
                Ok(())
            }
        }
    }
}

impl IntoFuture for Done {
    type Output = Result<(), LogError>;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}

const START_USIZE: usize = 8192;
const _: () = assert!(START_USIZE as u64 == START);

fn region() -> LogRegion {
    LogRegion {
        start: ByteOffset::new(START),
        len: ByteLen::from_usize(LEN),
    }
}

fn options() -> LogOptions {
    LogOptions {
        segment_len: ByteLen::from_usize(SEGMENT),
        ..LogOptions::new(STORE)
    }
}

async fn open(device: &Device) -> Result<Log, LogError> {
    let known: Vec<_> = (0..GROUPS).map(group_id).collect();
    Log::open_with(device, region(), options(), &known).await
}

/// What is lost of each group.
type Lost = Vec<Option<Damage>>;

/// Opens the log three times; each must say the same. `None` if nothing of it is left.
async fn open_thrice(device: &Device, is_forged: bool) -> Option<Log> {
    // As it said when it was opened, and when it was closed.
    let mut said: Option<(Lost, Lost)> = None;
    for _ in 0..2 {
        let log = match open(device).await {
            Ok(log) => log,
            Err(error) => {
                let is_first = said.is_none();
                let is_whole_log = matches!(
                    error,
                    LogError::Damaged { .. } | LogError::UnknownVersion { .. }
                );
                assert!(is_forged || is_first && is_whole_log, "{error}");
                return None;
            }
        };
        let found = damages(&log);
        if let Some((opened, closed)) = said.filter(|_| !is_forged) {
            let is_same = is_within(&opened, &found) && is_within(&found, &closed);
            assert!(is_same, "{opened:?}, then {closed:?}, then {found:?}");
        }
        log.close().await.expect("memory does not fail");
        said = Some((found, damages(&log)));
    }
    open(device).await.ok()
}

/// Whether what `less` says is lost is among what `more` does. They may differ by payloads: a bad one
/// is noticed when the entry is copied forward, and the copy says so from then on.
fn is_within(less: &Lost, more: &Lost) -> bool {
    less.iter().zip(more).all(|(less, more)| {
        let (less, more) = (
            less.clone().unwrap_or_default(),
            more.clone().unwrap_or_default(),
        );
        (less.vote_lost, less.end_lost) == (more.vote_lost, more.end_lost)
            && less.entries.iter().all(|lost| more.entries.contains(lost))
    })
}

fn damages(log: &Log) -> Lost {
    let groups = (0..GROUPS).map(|id| log.group(group_id(id)));
    groups.map(|group| group.damage()).collect()
}

fn states(log: &Log) -> Vec<GroupState> {
    let groups = (0..GROUPS).map(|id| log.group(group_id(id)));
    groups.map(|group| group.state()).collect()
}

fn group_id(id: usize) -> CopysetId {
    CopysetId::new(u32::try_from(id).expect("a few groups"))
}

fn allowed(history: &History) -> Range<usize> {
    history.durable.get()..history.states.len()
}

async fn image(device: &Device) -> Vec<u8> {
    let start = ByteOffset::new(START);
    let read = device.read(start, ByteLen::from_usize(LEN)).await;
    read.expect("memory does not fail").to_vec()
}

async fn device_of(image: &[u8]) -> Device {
    let device = Device::memory(ByteLen::from_usize(LEN + START_USIZE));
    let data = Buffer::copy_from(image);
    let written = device.write_durable(ByteOffset::new(START), data).await;
    written.expect("memory does not fail");
    device
}

/// Of the sectors that were being written, some are old and some are noise.
fn tear(script: &mut Script<'_>, old: &[u8], new: &mut [u8]) {
    let sectors = (0..LEN / SECTOR).map(|number| number * SECTOR..(number + 1) * SECTOR);
    let torn: Vec<Range<usize>> = sectors
        .filter(|bytes| old[bytes.clone()] != new[bytes.clone()])
        .collect();
    let habit = script.below(3);
    for bytes in torn {
        let choice = script.byte();
        match (habit, choice % 8) {
            (0, 0) | (1, 0..=3) | (2, 0..=6) => {
                new[bytes.clone()].copy_from_slice(&old[bytes]);
            }
            (_, 7) if choice > 128 => {
                let noise = script.byte();
                new[bytes].iter_mut().for_each(|byte| *byte ^= noise);
            }
            _ => {}
        }
    }
}

/// Whether a removed group that was made again is said to be purged as it was before: the removal is
/// among what was lost, and nothing that was found later contradicts the state from before it.
///
/// The log cannot know: once several batches are gone only what is stated later counts, and neither a
/// vote nor an entry tells which life of the group it is of. To count the beginning of every purged group
/// as lost would take each replica out of service that loses two batches in a row. What makes up for it
/// stands above the log. A group is purged only up to a durable checkpoint of its user, so that covers at
/// least `model.purged`. If it covers this purge too, nobody needs the entries up to it; if not, the user
/// sees that its log begins behind its checkpoint, and does not follow it: `mend.rs` of `ogee_group`.
fn is_of_an_earlier_life(purged: LogId, history: &History) -> bool {
    let now = history.last().purged;
    now.is_none_or(|now| now.index < purged.index)
        && history.states.iter().any(|was| was.purged == Some(purged))
}

/// Whether the group ever had this entry.
fn was_there(found: &Entry, history: &History) -> bool {
    let index = found.id.index.get();
    let had = |was: &Model| match was.entries.get(&index) {
        Some((term, pages)) => same(found, &entry(LogId::new(*term, index), *pages)),
        None => false,
    };
    history.states.iter().any(had)
}

/// Whether only a purge is lost: what it dropped is there again, as it was, or counts as lost. The user purges again,
/// up to its checkpoint.
fn is_purge_lost(found: &GroupState, history: &History) -> bool {
    let now = history.last().purged;
    found.purged < now && history.states.iter().any(|was| was.purged == found.purged)
}

/// Everything that was durable is there, or is said to be lost, or its user sees that it is not.
async fn check_damaged(log: &Log, id: usize, history: &History) {
    let (group, model) = (log.group(group_id(id)), history.last());
    let entries = model.entries();
    let purged = group.state().purged;
    let purged_before = purged.filter(|purged| is_of_an_earlier_life(*purged, history));
    for entry in &entries {
        let index = entry.id.index;
        let next = LogIndex::new(index.get() + 1);
        let found = group.entries(index..next, usize::MAX).await;
        let damage = group.damage().unwrap_or_default();
        let is_lost = damage.entries.iter().any(|lost| lost.index == index);
        // Below a lost entry that names nothing, what is there counts until that one is put back.
        let is_named = damage.entries.iter().all(|lost| lost.index < index);
        match found.as_deref() {
            Ok([found]) => {
                let is_same = same(found, entry);
                // A removal may have been lost with the end, or a cut: it is what once stood there.
                let is_earlier = damage.end_lost && was_there(found, history);
                assert!(
                    is_same || is_earlier || !is_named,
                    "entry {index} of group {id}: {damage}"
                );
            }
            Ok(_) if purged_before.is_some_and(|upto| index <= upto.index) => {}
            Ok(_) => assert!(damage.end_lost, "entry {index} of group {id}: {damage}"),
            Err(error) => assert!(is_lost, "entry {index} of group {id}: {error}"),
        }
    }
    let damage = group.damage().unwrap_or_default();
    let found = group.state();
    let is_there = |lost: bool, is_same: bool| lost || is_same;
    assert!(
        is_there(damage.vote_lost, found.vote == model.vote.map(vote)),
        "group {id}: vote {:?}, not {:?}: {damage}",
        found.vote,
        model.vote
    );
    assert!(
        is_there(damage.end_lost, found.last == model.last),
        "group {id}: last {:?}, not {:?}: {damage}",
        found.last,
        model.last
    );
    assert!(
        is_there(
            !damage.is_repairable() || purged_before.is_some() || is_purge_lost(&found, history),
            found.purged == model.purged
        ),
        "group {id}: purged {:?}, not {:?}: {damage}",
        found.purged,
        model.purged
    );
    for lost in &damage.entries {
        let entry = entries.iter().find(|entry| entry.id.index == lost.index);
        if let (Some(entry), Some(identity)) = (entry, lost.identity) {
            assert_eq!(identity, entry.identity(group_id(id)), "group {id}");
        }
    }
}

/// Puts back what is lost and named, going down, as long as other replicas have it.
async fn mend(log: &Log, id: usize, history: &History) {
    let (group, model) = (log.group(group_id(id)), history.last());
    let begin = history
        .states
        .iter()
        .rposition(|was| *was == Model::default());
    let life = &history.states[begin.unwrap_or(0)..];
    while let Some(damage) = group.damage() {
        let mut lost = damage.entries.iter().rev();
        let named = lost.find(|lost| lost.identity.is_some());
        let Some(index) = named.map(|lost| lost.index.get()) else {
            return;
        };
        let Some((term, pages)) = model.entries.get(&index) else {
            return;
        };
        let before = index.checked_sub(1).and_then(|before| {
            let mut had = life.iter().rev().filter_map(|was| was.entries.get(&before));
            had.next()
                .map(|(term, pages)| entry(LogId::new(*term, before), *pages))
        });
        let chain = before.map_or(0, |before| before.identity(group_id(id)));
        let entry = entry(LogId::new(*term, index), *pages);
        if group.repair(&entry, chain).await.is_err() {
            return;
        }
    }
}

fn pages_with(image: &[u8], magic: &[u8]) -> Vec<usize> {
    let pages = image.chunks_exact(PAGE).enumerate();
    let found = pages.filter(|(_, page)| page.starts_with(magic));
    found.map(|(number, _)| number).collect()
}

fn field32(area: &[u8], at: usize) -> usize {
    let bytes = area[at..at + 4].try_into().expect("four bytes");
    u32::from_le_bytes(bytes) as usize
}

fn put32(area: &mut [u8], at: usize, value: u32) {
    area[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Sequence of the batch whose header stands in that page.
fn sequence(image: &[u8], page: usize) -> u64 {
    let at = page * PAGE + 48;
    u64::from_le_bytes(image[at..at + 8].try_into().expect("eight bytes"))
}

/// Overwrites a few bytes of `area` from `from` on with what the script says.
fn scribble(script: &mut Script<'_>, area: &mut [u8], from: usize, to: usize) {
    let to = to.min(area.len());
    if from >= to {
        return;
    }
    let at = from + script.place(to - from);
    let width = [1, 2, 4, 8][script.below(4)];
    let value = match script.below(4) {
        0 => u64::MAX,
        1 => u64::MAX - 1,
        2 => 1 << 63,
        _ => script.u64(),
    };
    let end = to.min(at + width);
    area[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
}

/// The header area of a batch, as far as its own words can be trusted.
fn batch_area(image: &mut [u8], page: usize) -> &mut [u8] {
    let start = page * PAGE;
    let pages = field32(&image[start..], 68).clamp(1, 16);
    let end = image.len().min(start + pages * PAGE);
    &mut image[start..end]
}

fn seal(area: &mut [u8]) {
    put32(area, 12, 0);
    let crc = crc32c(area);
    put32(area, 12, crc);
}

/// Another header, or repeats, of a batch.
fn forge_batch(script: &mut Script<'_>, image: &mut [u8], page: usize) {
    let area = batch_area(image, page);
    let used = field32(area, 84).clamp(96, area.len());
    scribble(script, area, 32, used);
    seal(area);
}

/// Another record of a batch.
fn forge_record(script: &mut Script<'_>, image: &mut [u8], page: usize) {
    let area = batch_area(image, page);
    let (mut at, records) = (96, field32(area, 76).min(64));
    if records == 0 {
        return;
    }
    for _ in 0..script.below(records) {
        let head_len = usize::from(u16::from_le_bytes([area[at + 2], area[at + 3]]));
        at = (at + 64 + head_len).next_multiple_of(8);
        if at + 64 > area.len() {
            return;
        }
    }
    scribble(script, area, at, at + 64);
    let head_len = usize::from(u16::from_le_bytes([area[at + 2], area[at + 3]]));
    put32(area, at + 52, 0);
    let end = area.len().min(at + 64 + head_len);
    let crc = crc32c_append(crc32c(&area[at..at + 64]), &area[at + 64..end]);
    put32(area, at + 52, crc);
    seal(area);
}

/// Another segment header or state table, in both copies.
fn forge_segment(script: &mut Script<'_>, image: &mut [u8], page: usize) {
    let slot = page * PAGE / SEGMENT * SEGMENT;
    let area = &mut image[slot..slot + SEGMENT];
    let groups = field32(area, 100).clamp(1, 100);
    let table = 2 * PAGE..(2 * PAGE + groups * 88).next_multiple_of(PAGE);
    if script.flag() {
        scribble(script, area, 32, 112);
    } else {
        scribble(script, area, table.start, table.start + groups * 88);
        let crc = crc32c(&area[table.clone()]);
        put32(area, 104, crc);
        area.copy_within(table.clone(), table.end);
    }
    seal(&mut area[..PAGE]);
    area.copy_within(..PAGE, PAGE);
}
