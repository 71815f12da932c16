//! A dense run of items that are numbered by log index.
//!
//! *Place*: live entries of one group, in memory (`front`) and on the medium (`durable`).
//! *Owner*: the log's task. *Invariants*: items are consecutive. *On failure*: a push out of order
//! is a bug and panics.

use std::collections::VecDeque;
use std::ops::Range;

/// Consecutive items, numbered from `first`.
#[derive(Debug)]
pub(crate) struct Window<T> {
    first: u64,
    items: VecDeque<T>,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self {
            first: 0,
            items: VecDeque::new(),
        }
    }
}

impl<T> Window<T> {
    /// Numbers of the items held.
    pub(crate) fn range(&self) -> Range<u64> {
        self.first..self.first + self.items.len() as u64
    }

    /// Adds the next item; the first one may have any number.
    pub(crate) fn push(&mut self, index: u64, item: T) {
        if self.items.is_empty() {
            self.first = index;
        }
        assert_eq!(self.range().end, index, "items are consecutive");
        self.items.push_back(item);
    }

    /// The item numbered `index`.
    pub(crate) fn get(&self, index: u64) -> Option<&T> {
        self.items.get(self.position(index)?)
    }

    /// The item numbered `index`.
    pub(crate) fn get_mut(&mut self, index: u64) -> Option<&mut T> {
        let position = self.position(index)?;
        self.items.get_mut(position)
    }

    /// Drops the items outside `keep`, handing each to `dropped`.
    pub(crate) fn keep(&mut self, keep: &Range<u64>, mut dropped: impl FnMut(T)) {
        while self.range().end > keep.end.max(self.first) {
            self.items.pop_back().into_iter().for_each(&mut dropped);
        }
        while self.first < keep.start && !self.items.is_empty() {
            self.first += 1;
            self.items.pop_front().into_iter().for_each(&mut dropped);
        }
    }

    /// The items with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        (self.first..).zip(self.items.iter())
    }

    fn position(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Window;

    fn filled() -> Window<u64> {
        let mut window = Window::default();
        (10..15).for_each(|index| window.push(index, index * 2));
        window
    }

    #[test]
    fn finds_items_by_number() {
        let mut window = filled();
        assert_eq!(window.get(9), None);
        assert_eq!(window.get(12), Some(&24));
        assert_eq!(window.get(15), None);
        *window.get_mut(12).unwrap() = 1;
        assert_eq!(window.iter().nth(2), Some((12, &1)));
    }

    #[test]
    fn drops_at_both_ends() {
        let mut window = filled();
        let mut dropped = Vec::new();
        window.keep(&(11..13), |item| dropped.push(item));
        assert_eq!(window.range(), 11..13);
        assert_eq!(dropped, [28, 26, 20]);
        window.keep(&(40..40), |_| ());
        assert!(window.range().is_empty());
        window.push(40, 0);
        assert_eq!(window.range(), 40..41);
    }

    #[test]
    fn keeping_nothing_below_empties() {
        let mut window = filled();
        window.keep(&(0..0), |_| ());
        assert!(window.range().is_empty());
    }

    #[test]
    #[should_panic(expected = "consecutive")]
    fn refuses_a_gap() {
        filled().push(16, 0);
    }
}
