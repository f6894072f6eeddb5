//! A sorted list that knows positions: insert, remove, first, and "how many are smaller" without a walk over all.
//!
//! Blocks of at most 512 items, as in Python's `sortedcontainers`: a search over the blocks, then one within a block. At
//! a million items that is two thousand blocks, and a position is a sum over their lengths.

const BLOCK_MAX: usize = 512;

/// Items in order, without duplicates.
#[derive(Debug, Clone)]
pub struct SortedList<T> {
    /// None is empty.
    blocks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for SortedList<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), len: 0 }
    }
}

impl<T: Ord> SortedList<T> {
    /// How many items there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The smallest item.
    #[must_use]
    pub fn first(&self) -> Option<&T> {
        self.blocks.first()?.first()
    }

    /// All items in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten()
    }

    fn block_for(&self, item: &T) -> usize {
        self.blocks.partition_point(|block| block.last().is_some_and(|last| last < item))
    }

    /// Adds an item; `false` if it was there.
    pub fn insert(&mut self, item: T) -> bool {
        let index = self.block_for(&item).min(self.blocks.len().saturating_sub(1));
        let Some(block) = self.blocks.get_mut(index) else {
            self.blocks.push(vec![item]);
            self.len = 1;
            return true;
        };
        let Err(place) = block.binary_search(&item) else {
            return false;
        };
        block.insert(place, item);
        self.len = self.len.saturating_add(1);
        if block.len() > BLOCK_MAX {
            let upper = block.split_off(BLOCK_MAX / 2);
            self.blocks.insert(index.saturating_add(1), upper);
        }
        true
    }

    /// Removes an item; `false` if it was not there.
    pub fn remove(&mut self, item: &T) -> bool {
        let index = self.block_for(item);
        let Some(block) = self.blocks.get_mut(index) else {
            return false;
        };
        let Ok(place) = block.binary_search(item) else {
            return false;
        };
        block.remove(place);
        if block.is_empty() {
            self.blocks.remove(index);
        }
        self.len = self.len.saturating_sub(1);
        true
    }

    /// How many items are smaller, by a predicate that is true for a prefix of the list.
    pub fn count_while(&self, smaller: impl Fn(&T) -> bool) -> usize {
        let index = self.blocks.partition_point(|block| block.last().is_some_and(&smaller));
        let before = self.blocks.iter().take(index).fold(0_usize, |sum, block| sum.saturating_add(block.len()));
        let within = self.blocks.get(index).map_or(0, |block| block.partition_point(&smaller));
        before.saturating_add(within)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::SortedList;

    proptest! {
        #[test]
        fn behaves_as_a_sorted_set(steps in prop::collection::vec((any::<bool>(), 0_u16..2_000), 0..4_000)) {
            let mut list = SortedList::default();
            let mut set = BTreeSet::new();
            for (add, item) in steps {
                if add {
                    prop_assert_eq!(list.insert(item), set.insert(item));
                } else {
                    prop_assert_eq!(list.remove(&item), set.remove(&item));
                }
            }
            prop_assert_eq!(list.len(), set.len());
            prop_assert_eq!(list.first(), set.first());
            prop_assert!(list.iter().eq(set.iter()));
            for probe in [0, 500, 1_999] {
                prop_assert_eq!(list.count_while(|item| *item < probe), set.range(..probe).count());
            }
        }
    }
}
