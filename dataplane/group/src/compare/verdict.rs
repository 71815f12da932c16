//! What blocks are that replicas differ in.
//!
//! Pure: the same answers give the same verdict. What more than half of all voters hold was written; what a replica cannot
//! read is no contents, and never wins. What nobody can read is no difference, but lost (`lost`).

use super::piece::BlockSum;

/// What to do about a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// This is what most replicas hold.
    Most(BlockSum),
    /// No rule tells.
    Open,
}

/// Blocks of a piece that are not the same on all replicas, by their places in it; each of the answers is one voter's.
pub(super) fn judge(answers: &[&[BlockSum]]) -> Vec<(usize, Verdict)> {
    let blocks = answers.iter().map(|sums| sums.len()).min().unwrap_or(0);
    let of_block = |block: usize| answers.iter().map(move |sums| sums[block]);
    let differing = (0..blocks).filter(|block| {
        let first = of_block(*block).next();
        of_block(*block).any(|sum| Some(sum) != first)
    });
    differing
        .map(|block| (block, verdict(&of_block(block).collect::<Vec<_>>())))
        .collect()
}

fn verdict(sums: &[BlockSum]) -> Verdict {
    let votes = |of: BlockSum| sums.iter().filter(|sum| **sum == of).count();
    let whole = sums.iter().filter(|sum| **sum != BlockSum::Damaged);
    let most = whole.copied().find(|sum| votes(*sum) * 2 > sums.len());
    most.map_or(Verdict::Open, Verdict::Most)
}

#[cfg(test)]
mod tests {
    use super::{Verdict, judge};
    use crate::compare::piece::BlockSum::{self, Damaged, Data, Zeros};

    fn verdicts(voters: &[&[BlockSum]]) -> Vec<(usize, Verdict)> {
        judge(voters)
    }

    #[test]
    fn what_is_the_same_everywhere_is_let_be() {
        let same = [Zeros, Data(1), Data(0)];
        assert_eq!(verdicts(&[&same, &same, &same]), []);
        assert_eq!(verdicts(&[&same]), []);
        assert_eq!(verdicts(&[]), []);
    }

    #[test]
    fn two_of_three_win() {
        let (odd, rest) = ([Data(1), Data(9), Data(3)], [Data(1), Data(2), Data(3)]);
        let expected = [(1, Verdict::Most(Data(2)))];
        for voters in [
            [&odd, &rest, &rest],
            [&rest, &odd, &rest],
            [&rest, &rest, &odd],
        ] {
            let voters = voters.map(|sums| &sums[..]);
            assert_eq!(verdicts(&voters), expected);
        }
    }

    /// Data with the CRC32C of zero bytes is data.
    #[test]
    fn zeros_count_like_anything_else() {
        assert_eq!(
            verdicts(&[&[Zeros], &[Zeros], &[Data(0)]]),
            [(0, Verdict::Most(Zeros))]
        );
    }

    #[test]
    fn nothing_is_guessed() {
        let open = [(0, Verdict::Open)];
        assert_eq!(verdicts(&[&[Data(1)], &[Data(2)]]), open);
        assert_eq!(verdicts(&[&[Data(1)], &[Zeros]]), open);
        assert_eq!(verdicts(&[&[Data(1)], &[Data(2)], &[Data(3)]]), open);
        let five = [&[Data(1)], &[Data(1)], &[Data(2)], &[Data(2)], &[Data(3)]];
        assert_eq!(verdicts(&five.map(|sums| &sums[..])), open);
    }

    #[test]
    fn what_cannot_be_read_never_wins() {
        let most = [(0, Verdict::Most(Data(1)))];
        assert_eq!(verdicts(&[&[Damaged], &[Data(1)], &[Data(1)]]), most);
        let open = [(0, Verdict::Open)];
        assert_eq!(verdicts(&[&[Damaged], &[Damaged], &[Data(1)]]), open);
        assert_eq!(verdicts(&[&[Damaged], &[Damaged], &[Damaged]]), []);
        assert_eq!(verdicts(&[&[Damaged], &[Data(1)], &[Data(2)]]), open);
    }
}
