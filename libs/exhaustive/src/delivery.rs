//! What messages do: to nodes, to those who wait for answers, and when they can do nothing any more.

use crate::configuration::NODES;
use crate::engine::{Engine, Input};
use crate::message::NOBODY;
use crate::process::Process;
use crate::world::{Happens, Next, Touched, Went, World, Wrong, spend};

impl Engine<'_> {
    /// A request reaches its node, or does not and its sender is told so.
    pub(crate) fn deliver_request(&mut self, world: &World, number: u32, next: &mut Next) -> Result<(), Wrong> {
        let (from, rank) = {
            let message = self.messages.thing(number);
            (message.from, message.rank)
        };
        let asked = self.ask(world.nodes[rank], number);
        let deliver = Happens::Deliver(number);
        if asked.broken && self.plan.judge_nodes {
            return Err((deliver, self.rule_broken(world.nodes[rank], number)));
        }
        let changed = asked.node != world.nodes[rank];
        let contradicted = |other| other != rank && self.contradict(asked.node, world.nodes[other]);
        if changed && self.plan.judge_nodes && (0..NODES).any(contradicted) {
            return Err((deliver, "two nodes hold different states under one ballot".to_owned()));
        }
        let mut after = *world;
        after.nodes[rank] = asked.node;
        let delivered = after.without_message(number);
        self.answer(&delivered, deliver, rank, asked.answer, changed, next)?;
        if from == NOBODY {
            return Ok(());
        }
        if changed {
            self.repeat(world, &after, number, next)?;
        }
        let mut refused = world.without_message(number);
        if self.is_told_of_failures(world.processes[from])
            && spend(
                &mut refused.spent.refused_connections,
                self.plan.bounds.refused_connections,
            )
        {
            let happens = Happens::NotDelivered(number);
            let went = self.go_on(&refused, from, Input::NotDelivered(number), happens)?;
            self.reach(happens, went, Touched::place(from), next);
        }
        Ok(())
    }

    /// A copy of a request arrives after it, or before it. `after` is the world with the node changed, and the request still in flight.
    fn repeat(&mut self, world: &World, after: &World, number: u32, next: &mut Next) -> Result<(), Wrong> {
        let (rank, echo) = {
            let message = self.messages.thing(number);
            (message.rank, message.echo())
        };
        let bounds = self.plan.bounds;
        let mut kept = *after;
        if spend(&mut kept.spent.duplicates, bounds.duplicates) {
            let echo = self.messages.number(echo);
            let answer = self.ask(world.nodes[rank], number).answer;
            match kept.without_message(number).with_message(echo, bounds.messages) {
                Some(kept) => self.answer(&kept, Happens::DeliverAndKeep(number), rank, answer, true, next)?,
                None => next.beyond += 1,
            }
        }
        let mut before = *after;
        if spend(&mut before.spent.transport_repeats, bounds.transport_repeats) {
            self.reach(
                Happens::DeliverCopy(number),
                Went::To(before),
                Touched::rank(rank),
                next,
            );
        }
        Ok(())
    }

    /// A node has answered: the answer sets out, or arrives at once or never.
    fn answer(
        &mut self,
        world: &World,
        happens: Happens,
        rank: usize,
        answer: Option<u32>,
        changed: bool,
        next: &mut Next,
    ) -> Result<(), Wrong> {
        let touched = Touched {
            places: 0,
            rank: changed.then_some(rank),
        };
        let awaited = |answer: &u32| self.messages.thing(*answer).from;
        let place = answer.as_ref().map(awaited);
        let awaited = answer.filter(|answer| place.is_some_and(|place| self.awaits(world.processes[place], *answer)));
        let (Some(answer), Some(place)) = (awaited, place) else {
            self.reach(happens, Went::To(*world), touched, next);
            return Ok(());
        };
        if !self.plan.prompt_answers {
            let went = match world.with_message(answer, self.plan.bounds.messages) {
                Some(world) => Went::To(world),
                None => Went::Beyond,
            };
            self.reach(happens, went, touched, next);
            return Ok(());
        }
        let went = self.go_on(world, place, Input::Reply(answer), happens)?;
        let heard = Touched {
            places: 1 << place,
            ..touched
        };
        self.reach(happens, went, heard, next);
        // A request that changed nothing, and whose answer is lost, is as if it never arrived.
        if changed {
            let Happens::Deliver(number) = happens else {
                return Ok(());
            };
            let mut lost = *world;
            if spend(&mut lost.spent.lost_answers, self.plan.bounds.lost_answers) {
                self.reach(Happens::DeliverLosingAnswer(number), Went::To(lost), touched, next);
            }
        }
        Ok(())
    }

    fn is_told_of_failures(&self, process: u32) -> bool {
        matches!(self.processes.thing(process), Process::Running(running) if running.is_told_of_failures())
    }

    /// A world was reached, in which these processes or this node are not what they were.
    pub(crate) fn reach(&mut self, happens: Happens, went: Went, touched: Touched, next: &mut Next) {
        match went {
            Went::Nowhere => {}
            Went::Beyond => next.beyond += 1,
            Went::To(mut world) => {
                self.drop_idle_messages(&mut world, touched);
                world.flying[..world.flying_count].sort_unstable();
                next.worlds.push((happens, world));
            }
        }
    }

    /// Drops messages that can change nothing any more: answers that nobody waits for, and requests whose answer nobody waits for and
    /// which their node only refuses (or answers) from now on.
    fn drop_idle_messages(&mut self, world: &mut World, touched: Touched) {
        let mut at = 0;
        while at < world.flying_count {
            let number = world.flying[at];
            let message = self.messages.thing(number);
            let (from, to, is_request) = (message.from, message.rank, message.is_request());
            let by_place = from != NOBODY && touched.places & 1 << from != 0;
            let by_rank = is_request && (touched.rank == Some(to) || from == NOBODY);
            let idle = (by_place || by_rank) && {
                let awaited = from != NOBODY && self.awaits(world.processes[from], number);
                !awaited && (!is_request || self.ask(world.nodes[to], number).inert)
            };
            if idle {
                world.flying_count -= 1;
                world.flying[at] = world.flying[world.flying_count];
            } else {
                at += 1;
            }
        }
    }
}
