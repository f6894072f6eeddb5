//! Partitions: parts of a pool that are set aside for a tier or a client.
//!
//! The pool has one bucket, which alone decides what is there (invariant 1). A partition is a *claim* on it: a bucket of
//! the same shape, `percent` of the capacity and of the refill, from which only its members take. A grant needs the pool's
//! tokens and must leave the claims of the other partitions untouched:
//!
//! - a **reserved** partition claims what its next member waits for, as far as it has it. What nobody asks for is lent to
//!   whoever has the highest rank. When members come back, the whole refill of the pool goes to one after the other of
//!   their claims first: what was lent is back within the time that the pool takes to refill as much.
//! - a **dedicated** one (or one that does not lend) claims all that it has, always.
//! - what no partition claims is shared.
//!
//! These are the nominal quota, borrowing and lending limit of Kueue's cohorts (a lending limit of everything, or of
//! nothing), and the rate and ceiling of Linux HTB, with the pool as the only parent. A member takes from its own claim
//! first and borrows the rest, so it may use idle parts like anybody else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::ClientId;
use crate::priority::Tier;
use crate::token_bucket::{Availability, BucketLimits, TokenBucket};
use crate::units::{Instant, Tokens};

/// Whom a partition is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Member {
    /// Every client of the tier that has no partition of its own.
    Tier(Tier),
    /// One client.
    Client(ClientId),
}

/// A part of a pool that is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// Its name within the pool.
    pub name: String,
    /// Whom it is for.
    pub member: Member,
    /// Its share of capacity and refill; those of all partitions of a pool add up to 100 at most.
    pub percent: u8,
    /// Whether its idle share is lent.
    pub lends: bool,
}

impl Partition {
    /// Its part of the pool's limits.
    #[must_use]
    pub fn limits(&self, pool: &BucketLimits) -> BucketLimits {
        BucketLimits {
            capacity: share(pool.capacity, self.percent),
            refill_per_second: share(pool.refill_per_second, self.percent),
            window_cap: false,
        }
    }
}

fn share(whole: Tokens, percent: u8) -> Tokens {
    let part = i128::from(whole.micros()).saturating_mul(i128::from(percent)).checked_div(100).unwrap_or(0);
    Tokens::clamped(i64::try_from(part).unwrap_or(i64::MAX))
}

/// The partition of a client: its own, else its tier's.
#[must_use]
pub fn index_of(partitions: &[Partition], client: &ClientId, tier: Tier) -> Option<usize> {
    let own = |partition: &Partition| matches!(&partition.member, Member::Client(of) if of == client);
    let of_tier = |partition: &Partition| partition.member == Member::Tier(tier);
    partitions.iter().position(own).or_else(|| partitions.iter().position(of_tier))
}

/// The most that a member of a partition (or of none) can ever be granted at once: what the dedicated parts of others
/// leave of the capacity.
#[must_use]
pub fn reach(partitions: &[Partition], pool: &BucketLimits, own: Option<usize>) -> Tokens {
    partitions
        .iter()
        .enumerate()
        .filter(|(index, partition)| !partition.lends && Some(*index) != own)
        .fold(pool.capacity, |left, (_, partition)| left.saturating_sub(partition.limits(pool).capacity))
}

/// What is kept in a pool for requests of other pools, which go before whoever takes of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// For those that no partition's claim covers.
    shared: Tokens,
    /// By partition, for those that its claim covers.
    of_shares: Vec<Tokens>,
}

impl Kept {
    /// Nothing.
    pub const NONE: Self = Self { shared: Tokens::ZERO, of_shares: Vec::new() };

    /// So much is kept as well, for one that a partition's claim covers, or none.
    pub fn add(&mut self, covered_by: Option<usize>, amount: Tokens) {
        let sum = match covered_by {
            Some(index) => {
                let known = self.of_shares.len().max(index.saturating_add(1));
                self.of_shares.resize(known, Tokens::ZERO);
                self.of_shares.get_mut(index)
            }
            None => Some(&mut self.shared),
        };
        if let Some(sum) = sum {
            *sum = sum.saturating_add(amount);
        }
    }

    /// All of it.
    #[must_use]
    pub fn all(&self) -> Tokens {
        self.of_shares.iter().fold(self.shared, |sum, of_share| sum.saturating_add(*of_share))
    }

    /// What the claim of a partition covers of it.
    #[must_use]
    pub fn of(&self, index: usize) -> Tokens {
        self.of_shares.get(index).copied().unwrap_or(Tokens::ZERO)
    }
}

/// What each partition has left of its claim, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shares(BTreeMap<String, TokenBucket>);

impl Shares {
    /// Fits the claims to a changed configuration. A claim that is known stays, within its new size; a new one begins with
    /// its percentage of what the pool has and nobody's part holds.
    pub fn fit(&mut self, partitions: &[Partition], pool: &BucketLimits, level: Tokens, now: Instant) {
        let before = std::mem::take(&mut self.0);
        let known = partitions.iter().filter(|partition| !partition.lends).filter_map(|partition| {
            before.get(&partition.name).map(|bucket| bucket.level().min(partition.limits(pool).capacity))
        });
        let free = known.fold(level, Tokens::saturating_sub);
        for partition in partitions {
            let limits = partition.limits(pool);
            let begins = share(free, partition.percent);
            let holds = before.get(&partition.name).map_or(begins, TokenBucket::level);
            self.0.insert(partition.name.clone(), TokenBucket::holding(&limits, holds, now));
        }
        self.keep_within(partitions, level);
    }

    /// The pool has no more than `level`: what is dedicated shrinks alike until it is all there. Otherwise each of two
    /// members would leave to the other what neither has.
    pub fn keep_within(&mut self, partitions: &[Partition], level: Tokens) {
        let dedicated = || partitions.iter().filter(|partition| !partition.lends);
        let claims = dedicated().fold(Tokens::ZERO, |sum, partition| sum.saturating_add(self.left(partition)));
        if claims <= level {
            return;
        }
        for partition in dedicated() {
            if let Some(bucket) = self.0.get_mut(&partition.name) {
                let part = i128::from(bucket.level().micros())
                    .saturating_mul(i128::from(level.micros()))
                    .checked_div(i128::from(claims.micros()))
                    .unwrap_or(0);
                bucket.lower_to(Tokens::clamped(i64::try_from(part).unwrap_or(i64::MAX)));
            }
        }
    }

    /// Whether there is a claim for each partition, and no other.
    #[must_use]
    pub fn fits(&self, partitions: &[Partition]) -> bool {
        self.0.len() == partitions.len() && partitions.iter().all(|partition| self.0.contains_key(&partition.name))
    }

    /// Brings all claims up to `now`. What is dedicated gains nothing before the pool has paid back what it owes, if it
    /// owes anything: what is refilled until then is not there for anybody.
    pub fn refill(
        &mut self,
        partitions: &[Partition],
        pool: &BucketLimits,
        paid_back_at: Option<Instant>,
        now: Instant,
    ) {
        for partition in partitions {
            if let Some(bucket) = self.0.get_mut(&partition.name) {
                if let Some(paid_back_at) = paid_back_at.filter(|_| !partition.lends) {
                    bucket.skip_to(paid_back_at.min(now));
                }
                bucket.refill(&partition.limits(pool), now);
            }
        }
    }

    /// What a partition has left of its claim.
    #[must_use]
    pub fn left(&self, partition: &Partition) -> Tokens {
        self.0.get(&partition.name).map_or(Tokens::ZERO, TokenBucket::level)
    }

    /// When a partition's own claim reaches `amount`.
    #[must_use]
    pub fn reaches(&self, partition: &Partition, pool: &BucketLimits, amount: Tokens, now: Instant) -> Availability {
        let limits = partition.limits(pool);
        self.0.get(&partition.name).map_or(Availability::Never, |bucket| bucket.availability(&limits, amount, now))
    }

    /// Takes up to `amount` of a partition's claim; what that was.
    pub fn draw(&mut self, partition: &Partition, amount: Tokens) -> Tokens {
        self.0.get_mut(&partition.name).map_or(Tokens::ZERO, |bucket| bucket.draw(amount))
    }

    /// Gives back what was drawn of a claim and not used.
    pub fn give_back(&mut self, partition: &Partition, pool: &BucketLimits, amount: Tokens, taken_at: Instant) {
        if let Some(bucket) = self.0.get_mut(&partition.name) {
            bucket.give_back(&partition.limits(pool), amount, taken_at);
        }
    }

    /// What must be left in the pool when `own` takes something: the claims of the others, and what is kept. `wanted` is
    /// what the next member of each partition waits for. With `only_dedicated`, what is lent counts as idle. What is kept
    /// for one whose share claims it counts once: it takes of that share.
    #[must_use]
    pub fn claimed(
        &self,
        partitions: &[Partition],
        own: Option<usize>,
        wanted: &[Tokens],
        only_dedicated: bool,
        kept: &Kept,
    ) -> Tokens {
        partitions.iter().enumerate().fold(kept.shared, |sum, (index, partition)| {
            let left = self.left(partition);
            let claim = match (partition.lends, only_dedicated) {
                _ if Some(index) == own => Tokens::ZERO,
                (false, _) => left,
                (true, true) => Tokens::ZERO,
                (true, false) => left.min(wanted.get(index).copied().unwrap_or(Tokens::ZERO)),
            };
            sum.saturating_add(claim.max(kept.of(index)))
        })
    }

    /// How much of the claims is lent: what they are more than the pool has.
    #[must_use]
    pub fn lent(&self, level: Tokens) -> Tokens {
        self.0.values().fold(Tokens::ZERO, |sum, bucket| sum.saturating_add(bucket.level())).saturating_sub(level)
    }
}

#[cfg(test)]
mod tests {
    use super::{Kept, Member, Partition, Shares, index_of, reach};
    use crate::priority::Tier;
    use crate::token_bucket::BucketLimits;
    use crate::units::{Instant, Tokens};

    fn units(n: u64) -> Tokens {
        Tokens::from_units(n).unwrap()
    }

    fn partitions() -> Vec<Partition> {
        let partition = |name: &str, member, percent, lends| Partition { name: name.into(), member, percent, lends };
        vec![
            partition("gold", Member::Tier(Tier::Premium), 30, true),
            partition("acme", Member::Client("acme".parse().unwrap()), 20, false),
        ]
    }

    const POOL: (u64, u64) = (100, 10);

    fn limits() -> BucketLimits {
        BucketLimits { capacity: units(POOL.0), refill_per_second: units(POOL.1), window_cap: false }
    }

    #[test]
    fn a_clients_own_partition_goes_before_its_tiers() {
        let acme = "acme".parse().unwrap();
        assert_eq!(index_of(&partitions(), &acme, Tier::Premium), Some(1));
        assert_eq!(index_of(&partitions(), &"other".parse().unwrap(), Tier::Premium), Some(0));
        assert_eq!(index_of(&partitions(), &"other".parse().unwrap(), Tier::Basic), None);
    }

    #[test]
    fn only_what_is_dedicated_to_others_is_out_of_reach() {
        assert_eq!(reach(&partitions(), &limits(), None), units(80));
        assert_eq!(reach(&partitions(), &limits(), Some(0)), units(80));
        assert_eq!(reach(&partitions(), &limits(), Some(1)), units(100));
    }

    #[test]
    fn an_idle_share_is_lent_and_a_dedicated_one_is_not() {
        let (partitions, limits, now) = (partitions(), limits(), Instant::from_millis(0));
        let mut shares = Shares::default();
        shares.fit(&partitions, &limits, units(100), now);
        let idle = [Tokens::ZERO, Tokens::ZERO];
        let claimed = |own, wanted: &[Tokens]| shares.claimed(&partitions, own, wanted, false, &Kept::NONE);
        assert_eq!(claimed(None, &idle), units(20));
        assert_eq!(claimed(None, &[units(5), Tokens::ZERO]), units(25));
        assert_eq!(claimed(None, &[units(50), Tokens::ZERO]), units(50), "not more than it has");
        assert_eq!(claimed(Some(1), &idle), Tokens::ZERO);
        assert_eq!(shares.draw(&partitions[1], units(30)), units(20));
        assert_eq!(shares.left(&partitions[1]), Tokens::ZERO);
        shares.refill(&partitions, &limits, None, now.plus(1_000));
        assert_eq!(shares.left(&partitions[1]), units(2));
        shares.refill(&partitions, &limits, Some(now.plus(2_000)), now.plus(3_000));
        assert_eq!(shares.left(&partitions[1]), units(4), "for a second the pool paid back what it owed");
    }

    #[test]
    fn what_is_kept_for_one_whose_share_claims_it_counts_once() {
        let (partitions, limits, now) = (partitions(), limits(), Instant::from_millis(0));
        let mut shares = Shares::default();
        shares.fit(&partitions, &limits, units(100), now);
        let mut kept = Kept::NONE;
        kept.add(Some(1), units(15));
        kept.add(None, units(1));
        kept.add(Some(0), units(40));
        assert_eq!(kept.all(), units(56));
        let claimed =
            |own, only_dedicated| shares.claimed(&partitions, own, &[units(30), Tokens::ZERO], only_dedicated, &kept);
        assert_eq!(claimed(None, false), units(40 + 20 + 1), "the larger of what is kept and what is claimed");
        assert_eq!(claimed(None, true), units(40 + 20 + 1), "what is kept is not lent");
        assert_eq!(claimed(Some(1), false), units(40 + 15 + 1), "what is kept of one's own share is kept");
    }

    #[test]
    fn a_changed_configuration_never_claims_more_than_there_is() {
        let (partitions, limits, now) = (partitions(), limits(), Instant::from_millis(0));
        let mut shares = Shares::default();
        shares.fit(&partitions, &limits, units(10), now);
        assert_eq!((shares.left(&partitions[0]), shares.left(&partitions[1])), (units(3), units(2)));
        assert_eq!(shares.lent(units(10)), Tokens::ZERO);
        assert_eq!(shares.lent(units(1)), units(4));
        assert!(!shares.fits(&partitions[..1]));
    }
}
