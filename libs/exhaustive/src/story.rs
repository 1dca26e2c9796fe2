//! Executions for people: what happens, a line each.

use std::fmt::Write;

use register::message::Held;
use register::{Ballot, Reply, Request, State};

use crate::engine::{Cause, ENDED, EPOCH_MS, Engine, Input};
use crate::message::{Body, Message, NOBODY};
use crate::process::Timer;
use crate::world::{Happens, Next, World};

/// Tells what happens from the first world on.
pub(crate) fn tell(engine: &mut Engine<'_>, first: &World, way: &[Happens]) -> Vec<String> {
    let mut world = *first;
    let mut lines = Vec::new();
    for happens in way {
        let mut line = what(engine, &world, *happens);
        if let Some((place, input)) = step_of(engine, &world, *happens) {
            let done = reaction(engine, &world, place, input);
            let _ = write!(line, "{done}");
        }
        lines.push(line);
        let mut next = Next::default();
        // The last thing is the wrong one: no world comes after it.
        let reached = engine.next(&world, &mut next);
        match next.worlds.iter().find(|(other, _)| other == happens) {
            Some((_, after)) => world = *after,
            None => debug_assert!(reached.is_err(), "what happened once happens again"),
        }
    }
    lines
}

fn what(engine: &mut Engine<'_>, world: &World, happens: Happens) -> String {
    match happens {
        Happens::Call(place) => {
            let planned = &engine.plan.operations[usize::from(place)];
            let running = planned.after.iter().filter(|other| world.processes[**other] != ENDED);
            let deadlines = running.fold(String::new(), |text, other| {
                format!("{text}{} reaches its deadline; ", name(engine, *other))
            });
            let called = name(engine, place.into());
            format!("{deadlines}{called} is called at c{}", planned.coordinator + 1)
        }
        Happens::Begin(place, rank) => format!("{} begins with what n{rank} holds", name(engine, place.into())),
        Happens::Deliver(message) => delivery(engine, world, message, ""),
        Happens::DeliverAndKeep(message) => delivery(engine, world, message, " (a copy of it is still on its way)"),
        Happens::DeliverCopy(message) => {
            delivery(engine, world, message, " (a copy of it; itself is still on its way)")
        }
        Happens::DeliverLosingAnswer(message) => delivery(engine, world, message, " (the answer is lost)"),
        Happens::NotDelivered(message) => {
            let message = engine.messages.thing(message).clone();
            format!(
                "n{} is down for {} of {}",
                message.rank,
                body(&message),
                name(engine, message.from)
            )
        }
        Happens::Fires(place, timer) => {
            let what = match timer {
                Timer::Deadline => "reaches its deadline",
                Timer::Spare => "has waited for the homes long enough",
                Timer::Phase => "has waited for this round long enough",
                Timer::Pause => "has paused",
            };
            format!("{} {what}", name(engine, place.into()))
        }
        Happens::ClockJumps(coordinator) => format!("the clock of c{} jumps ahead", coordinator + 1),
    }
}

fn delivery(engine: &mut Engine<'_>, world: &World, number: u32, remark: &str) -> String {
    let message = engine.messages.thing(number).clone();
    let from = name(engine, message.from);
    match &message.body {
        Body::Reply(_) => format!("{from} hears from n{}: {}", message.rank, body(&message)),
        Body::Request(request) => {
            let done = engine.nodes.thing(world.nodes[message.rank]).ask(request);
            let answer = reply(&done.reply);
            format!("n{} takes {} of {from}{remark}: {answer}", message.rank, body(&message))
        }
    }
}

/// The process that something happens to, and what.
fn step_of(engine: &mut Engine<'_>, world: &World, happens: Happens) -> Option<(usize, Input)> {
    let from = |message: u32| engine.messages.thing(message).from;
    match happens {
        Happens::Call(place) => Some((place.into(), Input::Call)),
        Happens::Begin(place, rank) => Some((place.into(), Input::Begin(world.nodes[usize::from(rank)]))),
        Happens::Deliver(message) if !engine.messages.thing(message).is_request() => {
            Some((from(message), Input::Reply(message)))
        }
        Happens::Deliver(message) | Happens::DeliverAndKeep(message) if engine.plan.prompt_answers => {
            let (from, rank) = (from(message), engine.messages.thing(message).rank);
            let answer = engine.ask(world.nodes[rank], message).answer?;
            let heard = engine.awaits(world.processes[from], answer);
            heard.then_some((from, Input::Reply(answer)))
        }
        Happens::NotDelivered(message) => Some((from(message), Input::NotDelivered(message))),
        Happens::Fires(place, timer) => Some((place.into(), Input::Timer(timer))),
        _ => None,
    }
}

fn reaction(engine: &mut Engine<'_>, world: &World, place: usize, input: Input) -> String {
    let at = engine.coordinator_of(place);
    let step = engine.step(Cause {
        place,
        process: world.processes[place],
        coordinator: world.coordinators[at],
        jumped: world.jumped(at),
        input,
    });
    let step = engine.taken(step);
    let mut text = String::new();
    let mut asked: Vec<(String, Vec<String>)> = Vec::new();
    for message in &step.sent {
        let message = engine.messages.thing(*message);
        let to = format!("n{}", message.rank);
        let what = body(message);
        match asked.iter_mut().find(|(other, _)| *other == what) {
            Some((_, ranks)) => ranks.push(to),
            None => asked.push((what, vec![to])),
        }
    }
    for (what, ranks) in asked {
        let _ = write!(text, "; sends {what} to {}", ranks.join(", "));
    }
    if let Some(told) = &step.told {
        let _ = write!(text, "; the client is told: {told}");
    } else if step.process == ENDED {
        text.push_str("; it has ended");
    }
    text
}

fn name(engine: &Engine<'_>, place: usize) -> String {
    if place == NOBODY {
        return "nobody".to_owned();
    }
    let operations = &engine.plan.operations;
    match operations.get(place) {
        Some(planned) => format!("#{} ({})", place + 1, planned.verb),
        None => format!("{:?}", engine.plan.chores[place - operations.len()]),
    }
}

fn body(message: &Message) -> String {
    match &message.body {
        Body::Request(request) => self::request(request),
        Body::Reply(answer) => reply(answer),
    }
}

fn request(request: &Request) -> String {
    match request {
        Request::Read => "read".to_owned(),
        Request::Prepare { ballot } => format!("prepare {}", short(*ballot)),
        Request::Accept {
            ballot,
            state,
            blind,
            reserve,
            ..
        } => {
            let blind = if *blind { ", blind" } else { "" };
            let reserve = reserve.map_or_else(String::new, |ballot| format!(", reserve {}", short(ballot)));
            format!("accept {} = {}{blind}{reserve}", short(*ballot), value(state))
        }
        Request::Install { ballot, state } => format!("install {} = {}", short(*ballot), value(state)),
        Request::Forget { ballot } => format!("forget {}", short(*ballot)),
        Request::Retire { ballot } => format!("retire {}", short(*ballot)),
        Request::Collect { ballot } => format!("collect {}", short(*ballot)),
    }
}

fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Holds(held) => format!("holds {}", self::held(held)),
        Reply::Promised(held) => format!("promised, holds {}", self::held(held)),
        Reply::Accepted { reserved: true } => "accepted and reserved".to_owned(),
        Reply::Accepted { reserved: false } => "accepted".to_owned(),
        Reply::Refused { higher } => format!("refused for {}", short(*higher)),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn held(held: &Held) -> String {
    let floor = if held.floor.is_zero() {
        String::new()
    } else {
        format!(" (floor {})", short(held.floor))
    };
    match &held.state {
        Some(state) => format!("{} = {}{floor}", short(held.accepted), value(state)),
        None => format!("nothing{floor}"),
    }
}

fn value(state: &State) -> &str {
    state.value.as_deref().unwrap_or("∅")
}

/// Milliseconds since the beginning, the counter, the coordinator: `0.1c2`.
fn short(ballot: Ballot) -> String {
    if ballot.is_zero() {
        return "0".to_owned();
    }
    let ms = i128::from(ballot.time.unix_ms()) - i128::from(EPOCH_MS);
    let counter = ballot.time.to_bits() & u64::from(u16::MAX);
    format!("{ms}.{counter}c{}", ballot.incarnation)
}
