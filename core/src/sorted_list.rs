//! A sorted list that knows positions: insert, remove, first, and "how many are smaller, and how much do they weigh" without
//! a walk over all.
//!
//! Blocks of at most 512 items, as in Python's `sortedcontainers`, each of which knows what its items weigh together: a search
//! over the blocks, then one within a block. At a million items that is two thousand blocks, and a position is a sum over
//! them.

const BLOCK_MAX: usize = 512;

/// Items in order, without duplicates, each with what it weighs.
#[derive(Debug, Clone)]
pub struct SortedList<T> {
    /// None is empty.
    blocks: Vec<Block<T>>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Block<T> {
    items: Vec<(T, i64)>,
    /// What they weigh together.
    weight: i128,
}

impl<T> Block<T> {
    fn of(items: Vec<(T, i64)>) -> Self {
        let weight = weight_of(&items);
        Self { items, weight }
    }
}

fn weight_of<T>(items: &[(T, i64)]) -> i128 {
    items.iter().fold(0, |sum, (_, weight)| sum.saturating_add(i128::from(*weight)))
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
        self.iter().next()
    }

    /// All items in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flat_map(|block| &block.items).map(|(item, _)| item)
    }

    fn block_for(&self, item: &T) -> usize {
        self.blocks.partition_point(|block| block.items.last().is_some_and(|(last, _)| last < item))
    }

    /// Adds an item of this weight; `false` if it was there.
    pub fn insert(&mut self, item: T, weight: i64) -> bool {
        let index = self.block_for(&item).min(self.blocks.len().saturating_sub(1));
        let Some(block) = self.blocks.get_mut(index) else {
            self.blocks.push(Block::of(vec![(item, weight)]));
            self.len = 1;
            return true;
        };
        let Err(place) = block.items.binary_search_by(|(known, _)| known.cmp(&item)) else {
            return false;
        };
        block.items.insert(place, (item, weight));
        block.weight = block.weight.saturating_add(i128::from(weight));
        self.len = self.len.saturating_add(1);
        if block.items.len() > BLOCK_MAX {
            let upper = Block::of(block.items.split_off(BLOCK_MAX / 2));
            block.weight = block.weight.saturating_sub(upper.weight);
            self.blocks.insert(index.saturating_add(1), upper);
        }
        true
    }

    /// Removes an item; what it weighed, if it was there.
    pub fn remove(&mut self, item: &T) -> Option<i64> {
        let index = self.block_for(item);
        let block = self.blocks.get_mut(index)?;
        let place = block.items.binary_search_by(|(known, _)| known.cmp(item)).ok()?;
        let (_, weight) = block.items.remove(place);
        block.weight = block.weight.saturating_sub(i128::from(weight));
        if block.items.is_empty() {
            self.blocks.remove(index);
        }
        self.len = self.len.saturating_sub(1);
        Some(weight)
    }

    /// How many items are smaller, and what they weigh together, by a predicate that is true for a prefix of the list.
    pub fn measure_while(&self, smaller: impl Fn(&T) -> bool) -> (usize, i128) {
        let index = self.blocks.partition_point(|block| block.items.last().is_some_and(|(last, _)| smaller(last)));
        let (count, weight) = self.blocks.iter().take(index).fold((0_usize, 0_i128), |(count, weight), block| {
            (count.saturating_add(block.items.len()), weight.saturating_add(block.weight))
        });
        let items = self.blocks.get(index).map_or(&[][..], |block| &block.items);
        let (within, _) = items.split_at(items.partition_point(|(item, _)| smaller(item)));
        (count.saturating_add(within.len()), weight.saturating_add(weight_of(within)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::SortedList;

    proptest! {
        #[test]
        fn behaves_as_a_sorted_map(
            steps in prop::collection::vec((any::<bool>(), 0_u16..2_000, 0_i64..100), 0..4_000)
        ) {
            let mut list = SortedList::default();
            let mut map = BTreeMap::new();
            for (add, item, weight) in steps {
                if add {
                    prop_assert_eq!(list.insert(item, weight), !map.contains_key(&item));
                    map.entry(item).or_insert(weight);
                } else {
                    prop_assert_eq!(list.remove(&item), map.remove(&item));
                }
            }
            prop_assert_eq!(list.len(), map.len());
            prop_assert_eq!(list.first(), map.keys().next());
            prop_assert!(list.iter().eq(map.keys()));
            for probe in [0, 500, 1_999] {
                let smaller = || map.range(..probe).map(|(_, weight)| i128::from(*weight));
                prop_assert_eq!(list.measure_while(|item| *item < probe), (smaller().count(), smaller().sum()));
            }
        }
    }
}
