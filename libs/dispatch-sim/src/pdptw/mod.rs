//! Pick-up and delivery with time windows: the benchmark files of Li and Lim, and solutions of them.
//!
//! The problem (H. Li, A. Lim, *A metaheuristic for the pickup and delivery problem with time windows*, International Journal on Artificial
//! Intelligence Tools 12 (2003), 173–186): vehicles start at a depot and return to it; every request has a pick-up and a delivery, each with a
//! demand, a time window and a service time; one vehicle does both, in that order, within its capacity. Fewest vehicles first, then the
//! shortest way. A vehicle that is early waits; one that is late is not allowed. Time and distance have the same unit at speed 1.
//!
//! A file is text, numbers separated by blanks: `vehicles capacity speed`, then per line
//! `task x y demand ready due service pick-up delivery`. Task 0 is the depot. A pick-up names its delivery in the last column and has 0 in the one
//! before; a delivery the other way round.
//!
//! - [`Instance::read`], [`Instance::write`]: the files.
//! - [`Solution`]: routes, read and written as they are published.
//! - [`check`](Instance::check): is it allowed, and what does it cost?
//! - [`insert`]: a solution by insertion, for comparison.
//! - [`Online`]: the same requests as orders of our world, and back.

mod check;
mod insertion;
mod online;

use std::fmt::Write as _;

pub use self::check::{Cost, Fault};
pub use self::insertion::insert;
pub use self::online::Online;

use crate::geometry::Point;

/// Most tasks of a file, the depot included: a hundred times the largest published ones.
pub const TASKS_MAX: usize = 100_001;

/// Names of the columns, as errors call them.
const COLUMNS: [&str; 9] = [
    "task", "x", "y", "demand", "ready", "due", "service", "pick-up", "delivery",
];

/// A stop: the depot, a pick-up or a delivery.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Task {
    /// Where.
    pub at: Point,
    /// What is loaded; negative for a delivery.
    pub demand: f64,
    /// Service does not begin before.
    pub ready: f64,
    /// Service begins no later.
    pub due: f64,
    /// How long it takes.
    pub service: f64,
    /// The other end of the request: the delivery of a pick-up, the pick-up of a delivery; 0 for the depot.
    pub partner: usize,
    /// Whether something is loaded here.
    pub is_pickup: bool,
}

/// A problem.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// How many vehicles there are at most.
    pub vehicles: usize,
    /// What each carries at most.
    pub capacity: f64,
    /// Distance per time.
    pub speed: f64,
    /// The depot, then the tasks by number.
    pub tasks: Vec<Task>,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, {field}: {found:?}; expected {expected}")]
pub struct ReadError {
    /// Line, from 1.
    pub line: usize,
    /// Name of the column.
    pub field: &'static str,
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: &'static str,
}

/// A line with its number, cut into words.
struct Line<'a> {
    number: usize,
    words: Vec<&'a str>,
}

impl Line<'_> {
    fn error(&self, field: &'static str, found: &str, expected: &'static str) -> ReadError {
        ReadError {
            line: self.number,
            field,
            found: found.chars().take(60).collect(),
            expected,
        }
    }

    fn number(&self, column: usize, field: &'static str, least: f64) -> Result<f64, ReadError> {
        let expected = if least < 0.0 { "a number" } else { "a number, 0 or more" };
        let word = self.words.get(column).copied().unwrap_or_default();
        match word.parse::<f64>() {
            Ok(number) if number.is_finite() && number >= least => Ok(number),
            _ => Err(self.error(field, word, expected)),
        }
    }

    fn index(
        &self,
        column: usize,
        field: &'static str,
        most: usize,
        expected: &'static str,
    ) -> Result<usize, ReadError> {
        let word = self.words.get(column).copied().unwrap_or_default();
        (word.parse().ok().filter(|index| *index <= most)).ok_or_else(|| self.error(field, word, expected))
    }
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    (text.lines().zip(1..))
        .map(|(line, number)| Line {
            number,
            words: line.split_whitespace().collect(),
        })
        .filter(|line| !line.words.is_empty())
}

impl Instance {
    /// Whether `text` begins like such a file: a line of three numbers.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        lines(text)
            .next()
            .is_some_and(|line| line.words.len() == 3 && line.words.iter().all(|word| word.parse::<f64>().is_ok()))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Names the first line and column that does not fit.
    pub fn read(text: &str) -> Result<Self, ReadError> {
        let mut lines = lines(text);
        let head = lines.next().unwrap_or(Line {
            number: 1,
            words: Vec::new(),
        });
        let vehicles = head.index(0, "vehicles", TASKS_MAX, "a whole number from 1 to 100001")?;
        let (capacity, speed) = (head.number(1, "capacity", 0.0)?, head.number(2, "speed", 0.0)?);
        if vehicles == 0 {
            return Err(head.error("vehicles", "0", "a whole number from 1 to 100001"));
        }
        if speed <= 0.0 {
            return Err(head.error("speed", head.words[2], "a number above 0"));
        }
        let mut tasks = Vec::new();
        let mut numbers = Vec::new();
        let mut last = head.number;
        for line in lines {
            last = line.number;
            if tasks.len() == TASKS_MAX {
                return Err(line.error("task", line.words[0], "at most 100000 tasks"));
            }
            if line.words.len() != COLUMNS.len() {
                let last = line.words[line.words.len() - 1];
                return Err(line.error(
                    "columns",
                    last,
                    "9 of them: task x y demand ready due service pick-up delivery",
                ));
            }
            let [pickup, delivery] =
                [7, 8].map(|column| line.index(column, COLUMNS[column], TASKS_MAX, "the number of a task, or 0"));
            tasks.push(task(&line, tasks.len(), pickup?, delivery?)?);
            numbers.push(line.number);
        }
        let instance = Self {
            vehicles,
            capacity,
            speed,
            tasks,
        };
        if instance.tasks.is_empty() {
            let end = Line {
                number: last + 1,
                words: Vec::new(),
            };
            return Err(end.error("task", "", "the depot, task 0"));
        }
        instance.pairs_fit(&numbers)?;
        Ok(instance)
    }

    /// Each pick-up and its delivery name each other, and what one loads the other unloads.
    fn pairs_fit(&self, numbers: &[usize]) -> Result<(), ReadError> {
        for (index, task) in self.tasks.iter().enumerate().skip(1) {
            let fail = |field, found: String, expected| {
                Err(ReadError {
                    line: numbers[index],
                    field,
                    found,
                    expected,
                })
            };
            let field = if task.is_pickup { "delivery" } else { "pick-up" };
            let other = match self.tasks.get(task.partner) {
                Some(other) if other.partner == index && other.is_pickup != task.is_pickup => other,
                _ => {
                    return fail(
                        field,
                        task.partner.to_string(),
                        "a task that names this one as its other end",
                    );
                }
            };
            if (task.demand + other.demand).abs() > 1e-9 {
                return fail("demand", task.demand.to_string(), "what the other end loads or unloads");
            }
            if task.is_pickup && task.demand > self.capacity {
                return fail("demand", task.demand.to_string(), "at most the capacity of a vehicle");
            }
        }
        Ok(())
    }

    /// The file, for reading by this and by other programs.
    #[must_use]
    pub fn write(&self) -> String {
        let mut text = format!("{}\t{}\t{}\n", self.vehicles, self.capacity, self.speed);
        for (index, task) in self.tasks.iter().enumerate() {
            let Task {
                at,
                demand,
                ready,
                due,
                service,
                partner,
                is_pickup,
            } = task;
            let (pickup, delivery) = if *is_pickup { (0, *partner) } else { (*partner, 0) };
            // Writing to a string cannot fail; likewise below.
            let _ = writeln!(
                text,
                "{index}\t{}\t{}\t{demand}\t{ready}\t{due}\t{service}\t{pickup}\t{delivery}",
                at.x, at.y
            );
        }
        text
    }

    /// The pick-ups, by number.
    pub fn pickups(&self) -> impl Iterator<Item = usize> {
        (self.tasks.iter().enumerate().skip(1)).filter_map(|(index, task)| task.is_pickup.then_some(index))
    }
}

fn task(line: &Line<'_>, index: usize, pickup: usize, delivery: usize) -> Result<Task, ReadError> {
    let number = |column: usize, least| line.number(column, COLUMNS[column], least);
    if line.words[0].parse() != Ok(index) {
        return Err(line.error("task", line.words[0], "tasks in the order of their numbers, from 0"));
    }
    if (index == 0) != (pickup == 0 && delivery == 0) || (pickup != 0 && delivery != 0) {
        let expected = "one of pick-up and delivery for a task, none for the depot";
        return Err(line.error("pick-up", line.words[7], expected));
    }
    let task = Task {
        at: Point::new(number(1, f64::MIN)?, number(2, f64::MIN)?),
        demand: number(3, f64::MIN)?,
        ready: number(4, 0.0)?,
        due: number(5, 0.0)?,
        service: number(6, 0.0)?,
        partner: pickup.max(delivery),
        is_pickup: delivery != 0,
    };
    if task.due < task.ready {
        return Err(line.error("due", line.words[5], "no earlier than ready"));
    }
    if index > 0 && task.is_pickup != (task.demand > 0.0) {
        return Err(line.error("demand", line.words[3], "above 0 for a pick-up, below 0 for a delivery"));
    }
    Ok(task)
}

/// Routes: the tasks of each vehicle in their order, without the depot at both ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Solution {
    /// One per vehicle used.
    pub routes: Vec<Vec<usize>>,
}

impl Solution {
    /// Reads a published solution: `Route N : task task …` per line; other lines say who found it, and are passed over.
    ///
    /// # Errors
    /// Names the first line that does not fit, or that there is no route at all.
    pub fn read(text: &str) -> Result<Self, ReadError> {
        let mut routes = Vec::new();
        let mut last = 0;
        for (line, number) in text.lines().zip(1..) {
            last = number;
            let Some((head, tasks)) = line.split_once(':') else {
                continue;
            };
            if !head.trim_start().to_ascii_lowercase().starts_with("route") {
                continue;
            }
            let line = Line {
                number,
                words: tasks.split_whitespace().collect(),
            };
            let route = (0..line.words.len()).map(|column| line.index(column, "route", TASKS_MAX, "numbers of tasks"));
            let mut route = route.collect::<Result<Vec<_>, _>>()?;
            // Some write the depot at both ends.
            route.retain(|&task| task != 0);
            if !route.is_empty() {
                routes.push(route);
            }
        }
        if routes.is_empty() {
            let end = Line {
                number: last + 1,
                words: Vec::new(),
            };
            return Err(end.error("route", "", "lines such as `Route 1 : 3 75 4`"));
        }
        Ok(Self { routes })
    }

    /// As solutions are published. No date: the same settings give the same file.
    #[must_use]
    pub fn write(&self, instance: &str, authors: &str, reference: &str) -> String {
        let mut text =
            format!("Instance name : {instance}\nAuthors       : {authors}\nReference     : {reference}\nSolution\n");
        for (number, route) in (1..).zip(&self.routes) {
            let tasks: Vec<String> = route.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "Route {number} : {}", tasks.join(" "));
        }
        text
    }
}
