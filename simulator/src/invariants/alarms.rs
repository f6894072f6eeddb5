//! Time, and the alarms that the objects ask for.

use rm_core::units::Instant;

use super::world::{BEGINNING, World};

/// How often the tick comes, which finds alarms that were lost.
const TICK_MS: i64 = 60_000;

impl World {
    /// Time passes: messages arrive and alarms go off, in their order.
    pub(crate) fn pass_time(&mut self, millis: i64) {
        let until = self.now.plus(millis);
        for _ in 0..2_000 {
            let message = self.messages.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = [message, self.next_alarm()].into_iter().flatten().min().filter(|at| *at <= until) else {
                break;
            };
            self.now = self.now.max(at);
            if message == Some(at) {
                let Some((_, message)) = self.messages.pop_first() else { break };
                self.deliver(message);
            } else {
                self.ring_alarms();
            }
        }
        self.now = self.now.max(until);
    }

    /// When an object's alarm goes off: as it asked for it or, if that alarm was lost, at the tick.
    fn alarm_of(&self, name: &str, wanted: Option<Instant>) -> Option<Instant> {
        let tick = self.deaf_until.get(name).copied().filter(|tick| *tick > self.now);
        Some(wanted?.max(tick.unwrap_or(BEGINNING)))
    }

    pub(crate) fn next_alarm(&self) -> Option<Instant> {
        let pools = self
            .pools
            .iter()
            .filter_map(|(name, object)| self.alarm_of(name.as_str(), object.pool.next_wakeup(self.now)));
        let accounts = self
            .accounts
            .iter()
            .filter_map(|(name, object)| self.alarm_of(name.as_str(), object.account.next_wakeup()));
        pools.chain(accounts).min()
    }

    /// Loses an alarm that is due, now and then.
    fn loses_alarm(&mut self, name: &str) -> bool {
        if self.calm || !self.rng.chance(3) {
            return false;
        }
        self.saw("alarm lost");
        let now = self.now;
        self.log.say(now, || format!("{name}'s alarm is lost"));
        let next_tick = now.millis() - now.millis() % TICK_MS + TICK_MS;
        self.deaf_until.insert(name.to_owned(), Instant::from_millis(next_tick));
        true
    }

    fn ring_alarms(&mut self) {
        let now = self.now;
        for name in self.pool_names() {
            let alarm = self.alarm_of(name.as_str(), self.pools[&name].pool.next_wakeup(now));
            if alarm.is_some_and(|at| at <= now.plus(1)) && !self.loses_alarm(name.as_str()) {
                self.now = now.plus(1);
                self.log.say(self.now, || format!("{name} wakes up"));
                self.at_pool(&name, |object, now| object.pool.on_wakeup(now));
            }
        }
        for name in self.client_names() {
            let now = self.now;
            let alarm = self.alarm_of(name.as_str(), self.accounts[&name].account.next_wakeup());
            if alarm.is_some_and(|at| at <= now) && !self.loses_alarm(name.as_str()) {
                self.log.say(now, || format!("{name}'s account wakes up"));
                self.at_account(&name, |object| object.account.on_wakeup(now, 16));
            }
        }
    }
}
