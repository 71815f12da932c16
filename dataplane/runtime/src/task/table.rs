//! The live tasks of an executor.
//!
//! **Place.** Written by `cell` as tasks start and end; read once, when the executor shuts down.
//!
//! **Owner.** One table per thread, hence per executor.
//!
//! **Invariants.** A task is listed from its start until its future is dropped. After
//! [`cancel_all`] none is left, so an executor never leaks the files and sockets of tasks that were
//! still waiting when its main future returned.
//!
//! **Failure.** More than [`TASKS_MAX`] tasks is a bug and panics.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use crate::engine::{Scope, current_scope};
use crate::limit::TASKS_MAX;

/// What the table can do with a task.
pub(super) trait Abort {
    /// Drops the future at once; see `cell`.
    fn abort(&self);
}

/// Place of a task in the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot(usize);

/// A live task.
struct Entry {
    task: Weak<dyn Abort>,
    #[cfg_attr(
        not(ogee_sim),
        expect(dead_code, reason = "only hosts of the simulator die alone")
    )]
    scope: Scope,
}

#[derive(Default)]
struct TaskTable {
    tasks: Vec<Option<Entry>>,
    free: Vec<usize>,
}

thread_local! {
    static TABLE: RefCell<TaskTable> = RefCell::default();
}

/// Lists a task that starts.
pub(super) fn enter(task: Weak<dyn Abort>) -> Slot {
    let entry = Entry {
        task,
        scope: current_scope(),
    };
    TABLE.with_borrow_mut(|table| {
        if let Some(index) = table.free.pop() {
            table.tasks[index] = Some(entry);
            return Slot(index);
        }
        assert!(
            table.tasks.len() < TASKS_MAX,
            "more than {TASKS_MAX} tasks on one executor"
        );
        table.tasks.push(Some(entry));
        Slot(table.tasks.len() - 1)
    })
}

/// Removes a task that ended.
pub(super) fn leave(slot: Slot) {
    // At thread exit the table may be gone before the last task: then there is nothing to update.
    let _ = TABLE.try_with(|table| {
        let mut table = table.borrow_mut();
        if table.tasks[slot.0].take().is_some() {
            table.free.push(slot.0);
        }
    });
}

/// Cancels every live task, including those that a destructor starts meanwhile.
pub(crate) fn cancel_all() {
    while let Some(task) = any_live() {
        task.abort();
    }
}

fn any_live() -> Option<Rc<dyn Abort>> {
    find_live(|_| true)
}

/// Cancels every live task of one scope, in the order of the table, including those that a destructor
/// starts meanwhile.
#[cfg(ogee_sim)]
pub(crate) fn cancel_scope(scope: Scope) {
    while let Some(task) = find_live(|entry| entry.scope == scope) {
        task.abort();
    }
}

fn find_live(is_wanted: impl Fn(&Entry) -> bool) -> Option<Rc<dyn Abort>> {
    TABLE.with_borrow(|table| {
        let wanted = table.tasks.iter().flatten().filter(|it| is_wanted(it));
        wanted.map(|entry| &entry.task).find_map(Weak::upgrade)
    })
}
