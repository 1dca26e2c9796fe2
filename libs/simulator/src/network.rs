//! Messages on their way: lost, late, repeated, and decided by nodes.

use register::{Reply, Request};

use crate::teeth::ShellTooth;
use crate::world::{Message, Trouble, US_PER_MS, What, World, small};

/// A node that does not listen refuses a connection within this time, in microseconds.
const REFUSED_WITHIN_US: u64 = 2_000;
/// When a lost message is noticed at all, it is within this time, in milliseconds: the transport's own timeout.
const TRANSPORT_TIMEOUT_MS: u64 = 3_000;

impl World<'_> {
    pub(crate) fn delay_us(&mut self) -> u64 {
        if self.calm {
            return US_PER_MS / 2;
        }
        self.plan.delay_us(&mut self.rng)
    }

    pub(crate) fn chance(&mut self, per_mille: u32) -> bool {
        !self.calm && self.rng.per_mille(per_mille)
    }

    /// Sends a request, which may get lost.
    pub(crate) fn send(&mut self, message: Message) {
        if self.chance(self.plan.loss_per_mille) {
            return self.maybe_notice(&message);
        }
        let mut late_us = 0;
        if let Some(burden) = self.kind.tilt.burden(&message.request, message.rank) {
            if self.chance(burden.lost_per_mille) {
                return self.maybe_notice(&message);
            }
            if self.chance(burden.late_per_mille) {
                late_us = burden.late_us(&mut self.rng);
            }
        }
        let after = self.delay_us() + late_us;
        self.after(after, What::Arrive(Box::new(message)));
    }

    /// Of a message that is lost the transport may say so, after a while; that it was not delivered it cannot know.
    fn maybe_notice(&mut self, message: &Message) {
        if !message.copy && self.rng.per_mille(300) {
            let after = self.rng.range(1, TRANSPORT_TIMEOUT_MS) * US_PER_MS;
            self.tell_failure(message, after, self.wrong == Some(ShellTooth::DeliveryDenied));
        }
    }

    fn tell_failure(&mut self, message: &Message, after_us: u64, undelivered: bool) {
        if !message.copy {
            let what = What::Fail {
                to: message.to,
                round: message.round,
                rank: message.rank,
                delivered: !undelivered,
            };
            self.after(after_us, what);
        }
    }

    pub(crate) fn arrive(&mut self, message: Message) {
        let (index, front) = (usize::from(message.node), usize::from(message.to.front));
        if !self.nodes[index].up {
            let after = self.rng.range(100, REFUSED_WITHIN_US);
            return self.tell_failure(&message, after, true);
        }
        if self.fronts[front].requests_cut >> index & 1 == 1 {
            return self.maybe_notice(&message);
        }
        let wall_ms = self.wall_ms(self.nodes[index].offset_ms);
        let node = &mut self.nodes[index];
        if node.observe(&message, wall_ms).is_err() {
            let after = self.delay_us();
            return self.tell_failure(&message, after, true);
        }
        if self.chance(self.plan.copies_per_mille) && !message.copy {
            self.send_copy(&message);
        }
        let key = usize::from(message.key);
        if message.request == Request::Read {
            let reply = self.nodes[index].read(key, self.wrong);
            return self.reply(&message, reply);
        }
        if self.wrong == Some(ShellTooth::AckBeforeFsync) {
            let reply = self.nodes[index].change_in_memory(key, &message.request);
            self.reply(&message, reply);
            return self.commit_later(index);
        }
        let idle = self.nodes[index].waiting.is_empty();
        self.nodes[index].waiting.push(message);
        if idle {
            self.commit_later(index);
        }
    }

    /// The same message arrives again, later: by then anything may have happened. Its answer finds nobody.
    fn send_copy(&mut self, message: &Message) {
        let copy = Message {
            copy: true,
            request: message.request.clone(),
            ..*message
        };
        let after = self.delay_us() + self.delay_us();
        self.after(after, What::Arrive(Box::new(copy)));
    }

    fn commit_later(&mut self, node: usize) {
        let after = self.plan.commit_us(&mut self.rng);
        let start = self.nodes[node].start;
        self.after(
            after,
            What::Commit {
                node: small(node),
                start,
            },
        );
    }

    /// Everything that has queued up is decided, made durable, and answered.
    pub(crate) fn commit(&mut self, index: usize, start: u32) {
        let node = &mut self.nodes[index];
        if node.start != start {
            return;
        }
        let mut batch = std::mem::take(&mut node.waiting);
        // Its answer is lost with some crashes right after a commit.
        for message in batch.drain(..) {
            let reply = self.nodes[index].change(usize::from(message.key), &message.request);
            if let Reply::Corrupt { ballot } = &reply {
                self.bad(Trouble::Corrupt(format!("a node found two states under {ballot}")));
            }
            self.reply(&message, reply);
        }
        let node = &mut self.nodes[index];
        node.made_durable();
        node.waiting = batch;
    }

    fn reply(&mut self, message: &Message, reply: Reply) {
        if message.copy {
            return;
        }
        let (index, front) = (usize::from(message.node), usize::from(message.to.front));
        if self.fronts[front].answers_cut >> index & 1 == 1 || self.chance(self.plan.loss_per_mille) {
            return self.maybe_notice(message);
        }
        let wall_ms = self.wall_ms(self.nodes[index].offset_ms);
        let what = What::Answer {
            to: message.to,
            round: message.round,
            rank: message.rank,
            clock: self.nodes[index].reading(wall_ms),
            reply: Box::new(reply),
        };
        let after = self.delay_us();
        self.after(after, what);
    }

    pub(crate) fn hello(&mut self, front: u8, start: u32, node: u8) {
        let index = usize::from(node);
        let cut = self.fronts[usize::from(front)].requests_cut | self.fronts[usize::from(front)].answers_cut;
        if !self.nodes[index].up || cut >> index & 1 == 1 || self.chance(self.plan.loss_per_mille) {
            return;
        }
        let wall_ms = self.wall_ms(self.nodes[index].offset_ms);
        let clock = self.nodes[index].reading(wall_ms);
        let after = self.delay_us();
        self.after(
            after,
            What::HelloBack {
                front,
                start,
                node,
                clock,
            },
        );
    }
}
