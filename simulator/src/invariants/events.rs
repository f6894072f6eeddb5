//! An event of an object, as the shell lets it happen: what it changes is stored, and only then performed. What the checks
//! want to know of before and after is looked at here.

use rm_core::account::AccountEffect;
use rm_core::id::{ClientId, PoolId};
use rm_core::optimizer::Savings;
use rm_core::units::Instant;

use super::ranks::Ranks;
use super::shell::{AccountObject, Message, PoolObject};
use super::turns::Waiting;
use super::world::World;

impl World {
    /// Lets an event happen to a pool, as the shell does.
    pub(crate) fn at_pool<T>(&mut self, name: &PoolId, event: impl FnOnce(&mut PoolObject, Instant) -> T) -> T {
        let now = self.now;
        self.pool_time.insert(name.clone(), now);
        let object = self.pools.get_mut(name).unwrap();
        let overused_before = object.pool.ledger().overused;
        let orders = self.orders.entry(name.clone()).or_default();
        let (before, ranks) = (Waiting::of(object, orders, now), Ranks::of(object, now));
        let outcome = event(object, now);
        let saved = object.save();
        let passed_over = before.passed_over(object, orders, now, self.passed_over.get(name).copied().unwrap_or(0));
        let found = ranks.passed_over(&before, object, orders, now);
        let divided = !object.pool.config().partitions.is_empty();
        let overused = object.pool.ledger().overused > overused_before;
        if passed_over > self.passed_over.insert(name.clone(), passed_over).unwrap_or(0) {
            self.saw(if divided { "promoted one passed over in a divided pool" } else { "promoted one passed over" });
        }
        let compared = [(found.ranks, "ranks compared"), (found.ages, "ages in a lane compared")];
        compared.into_iter().filter(|(any, _)| *any).for_each(|(_, event)| self.saw(event));
        self.passed.add(name, found);
        if overused {
            self.saw("pool overused");
        }
        for (id, status) in saved.ended {
            self.saw(status.as_str());
            self.log.say(now, || format!("  {id} ends: {}", status.as_str()));
            let lines = &self.pools[name].ended[&id].end.lines;
            let saved = lines.iter().fold(Savings::default(), |sum, line| sum.and(line.saved));
            self.saw_savings(saved);
        }
        for effect in saved.effects {
            self.perform(name.clone(), effect);
        }
        outcome
    }

    pub(crate) fn at_account<T>(&mut self, name: &ClientId, event: impl FnOnce(&mut AccountObject) -> T) -> T {
        let object = self.accounts.get_mut(name).unwrap();
        let outcome = event(object);
        for effect in object.save() {
            match effect {
                AccountEffect::WakePool { pool } => self.send(Message::Wake(pool, name.clone())),
                AccountEffect::AskHome { id, slot } => self.send(Message::AskHome(name.clone(), id, slot)),
            }
        }
        outcome
    }
}
