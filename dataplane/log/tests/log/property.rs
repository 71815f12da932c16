//! Random calls against the model, with many small segments, so that everything wraps.

use crate::model::ModelGroup;
use crate::support::{ALL, append, assert_entries, formatted, group, open, vote};
use ogee_device::Device;
use ogee_log::{Entry, Log, LogError};
use ogee_proto::id::{CopysetId, LogId, LogIndex};
use ogee_runtime::executor::block_on;
use proptest::prelude::{Just, ProptestConfig, Strategy};
use proptest::{collection, prop_oneof, proptest};
use std::collections::BTreeMap;

const SEGMENTS: usize = 8;
const GROUPS: u32 = 4;

#[derive(Clone, Debug)]
enum Step {
    Append { group: u32, pages: Vec<usize> },
    Truncate { group: u32, keep_percent: u64 },
    Purge { group: u32, percent: u64 },
    PurgeBeyond { group: u32, by: u64 },
    Vote { group: u32 },
    Committed { group: u32 },
    Remove { group: u32 },
    NewTerm,
    Check,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let group = 0..GROUPS;
    prop_oneof![
        8 => (group.clone(), collection::vec(0usize..=4, 0..6))
            .prop_map(|(group, pages)| Step::Append { group, pages }),
        2 => (group.clone(), 0u64..=100)
            .prop_map(|(group, keep_percent)| Step::Truncate { group, keep_percent }),
        5 => (group.clone(), 0u64..=100)
            .prop_map(|(group, percent)| Step::Purge { group, percent }),
        1 => (group.clone(), 1u64..5).prop_map(|(group, by)| Step::PurgeBeyond { group, by }),
        2 => group.clone().prop_map(|group| Step::Vote { group }),
        2 => group.clone().prop_map(|group| Step::Committed { group }),
        1 => group.prop_map(|group| Step::Remove { group }),
        2 => Just(Step::NewTerm),
        1 => Just(Step::Check),
        2 => Just(Step::Reopen),
    ]
}

struct Run {
    device: Device,
    log: Log,
    model: BTreeMap<u32, ModelGroup>,
    term: u64,
}

impl Run {
    async fn step(&mut self, step: Step) {
        match step {
            Step::Append { group, pages } => self.append(group, &pages).await,
            Step::NewTerm => self.term += 1,
            Step::Check => self.check().await,
            Step::Reopen => {
                self.log.close().await.expect("close");
                self.log = open(&self.device, SEGMENTS).await;
                self.check().await;
            }
            Step::Remove { group } => {
                self.model.remove(&group);
                drop(self.log.remove_group(CopysetId::new(group)));
            }
            Step::Vote { group: id } => {
                self.model.entry(id).or_default().vote = Some(self.term);
                drop(group(&self.log, id).save_vote(vote(self.term)));
            }
            Step::Committed { group: id } => {
                let model = self.model.entry(id).or_default();
                if let Some(last) = model.last {
                    model.committed = Some(last);
                    group(&self.log, id).save_committed(last);
                } else {
                    self.model
                        .retain(|_, model| *model != ModelGroup::default());
                }
            }
            Step::Truncate {
                group,
                keep_percent,
            } => self.truncate(group, keep_percent),
            Step::Purge { group, percent } => {
                let Some(model) = self.model.get(&group) else {
                    return;
                };
                let purged = model.purged.map_or(0, |purged| purged.index.get());
                let span = model.next_index().saturating_sub(purged);
                self.purge(group, purged + span * percent / 100);
            }
            Step::PurgeBeyond { group, by } => {
                let next = self.model.get(&group).map_or(0, ModelGroup::next_index);
                self.purge(group, next + by);
            }
        }
    }

    async fn append(&mut self, id: u32, pages: &[usize]) {
        let mut after = self.model.get(&id).cloned().unwrap_or_default();
        let first = after.next_index();
        pages
            .iter()
            .for_each(|pages| after.append(self.term, *pages));
        let entries: Vec<Entry> = after
            .entries()
            .into_iter()
            .filter(|entry| entry.id.index.get() >= first)
            .collect();
        let writer = group(&self.log, id);
        let fits = self.log.has_space(pages.iter().map(|pages| pages * 4096));
        match append(&writer, entries).await {
            Ok(()) if pages.is_empty() => {}
            Ok(()) => {
                assert!(fits);
                self.model.insert(id, after);
            }
            Err(LogError::Full { .. }) => assert!(!fits),
            Err(error) => panic!("append: {error}"),
        }
    }

    fn truncate(&mut self, id: u32, keep_percent: u64) {
        let Some(model) = self.model.get_mut(&id) else {
            return;
        };
        let purged = model.purged.map_or(0, |purged| purged.index.get());
        let after = purged + model.next_index().saturating_sub(purged) * keep_percent / 100;
        model.truncate_after(after);
        drop(group(&self.log, id).truncate_after(Some(LogIndex::new(after))));
    }

    fn purge(&mut self, id: u32, upto: u64) {
        let upto = LogId::new(self.term, upto);
        self.model.entry(id).or_default().purge(upto);
        drop(group(&self.log, id).purge(upto));
    }

    async fn check(&self) {
        let ids: Vec<u32> = self.log.groups().iter().map(|id| id.get()).collect();
        assert_eq!(ids, self.model.keys().copied().collect::<Vec<_>>());
        for (id, model) in &self.model {
            let group = group(&self.log, *id);
            assert_eq!(group.state(), model.state(), "group {id}");
            let found = group.entries(ALL, usize::MAX).await.expect("read");
            assert_entries(&found, &model.entries());
        }
        let usage = self.log.usage();
        assert!(usage.used.get() + usage.free.get() <= usage.capacity.get());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_model(steps in collection::vec(step(), 1..120)) {
        block_on(async {
            let (device, _) = formatted(SEGMENTS).await;
            let log = open(&device, SEGMENTS).await;
            let mut run = Run { device, log, model: BTreeMap::new(), term: 1 };
            for step in steps {
                run.step(step).await;
            }
            run.step(Step::Reopen).await;
        });
    }
}
