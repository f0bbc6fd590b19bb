//! The run: what is due is given to its producer, answers are taken in as they come, phases follow one another.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ouzel_bench::schedule::Schedule;
use rustix::event::epoll;
use serde_json::{Value, json};

use crate::asking;
use crate::consumer::Consumer;
use crate::producer::{self, Producer};
use crate::tally::{self, Tally};
use crate::task::Task;

/// How long answers to what was due may be outstanding after the window.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Without anything to do, phases are looked at this often.
const TICK: Duration = Duration::from_millis(20);
/// Who watches is told this often how far the run has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Warm,
    Measured,
    Drain,
}

/// Carries a task out; the result.
pub(crate) fn run(task: &Task) -> io::Result<Value> {
    asking::await_leaders(task)?;
    // The kernel may otherwise add 50 us to every wait.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
    let mut run = Run::connect(task)?;
    run.go()?;
    if task.sheds {
        tally::keeps_up(run.tally.produced_records, run.shed_in_window).map_err(io::Error::other)?;
    }
    Ok(run.tally.json(task.rate.is_some()))
}

struct Run<'a> {
    task: &'a Task,
    poll: std::os::fd::OwnedFd,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    tally: Tally,
    schedule: Option<Schedule>,
    /// Batches that have become due.
    taken_up: u64,
    began: Instant,
    /// Where each partition is begun to be fetched.
    bases: Vec<i64>,
    /// When each batch of each partition was due, by its place behind the base, while end-to-end latency is asked for.
    due: Vec<Vec<Duration>>,
    phase: Phase,
    phase_began: Duration,
    /// Records of all phases up to the present one, and of all of them, for the limit of a phase.
    records_before_phase: u64,
    records: u64,
    /// Records that consumers were given, in all phases.
    fetched: u64,
    /// When who watches is told again.
    next_progress: Duration,
    /// Records in the topic when the window was opened, where nobody acknowledges any.
    records_at_opening: i64,
    /// Records that were gone from the topic when the window was opened, and that went while it was open.
    shed_at_opening: u64,
    shed_in_window: u64,
    /// Producers that could send more at once.
    eager: BTreeSet<usize>,
}

impl<'a> Run<'a> {
    fn connect(task: &'a Task) -> io::Result<Run<'a>> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let batches = producer::batches(task, now_ms);
        let producers = (0..task.producers)
            .map(|index| Producer::connect(task, index, &batches))
            .collect::<io::Result<Vec<_>>>()?;
        let bases = match task.fetches_the_tail() {
            true => asking::ends(task)?,
            false => vec![0; task.partitions as usize],
        };
        let consumers =
            (0..task.consumers).map(|_| Consumer::connect(task, &bases)).collect::<io::Result<Vec<_>>>()?;
        let both = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let sockets = producers.iter().map(|producer| &producer.connection.socket);
        let sockets = sockets.chain(consumers.iter().map(|consumer| &consumer.connection.socket));
        for (id, socket) in sockets.enumerate() {
            // Edge-triggered: there is nearly always room to write. What reads goes on until there is no more.
            epoll::add(&poll, socket, epoll::EventData::new_u64(id as u64), both)?;
        }
        Ok(Run {
            task,
            poll,
            producers,
            consumers,
            tally: Tally::new(task.measured).map_err(io::Error::other)?,
            schedule: task.rate.map(Schedule::new),
            taken_up: 0,
            began: Instant::now(),
            bases,
            due: vec![Vec::new(); task.partitions as usize],
            phase: Phase::Warm,
            phase_began: Duration::ZERO,
            records_before_phase: 0,
            records: 0,
            fetched: 0,
            next_progress: PROGRESS_EVERY,
            records_at_opening: 0,
            shed_at_opening: 0,
            shed_in_window: 0,
            eager: BTreeSet::new(),
        })
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn go(&mut self) -> io::Result<()> {
        self.began = Instant::now();
        for consumer in &mut self.consumers {
            consumer.ask()?;
        }
        for index in 0..self.producers.len() {
            self.pump(index)?;
        }
        let mut events = Vec::with_capacity(256);
        while self.advance_phase()? {
            self.take_up_due()?;
            for index in std::mem::take(&mut self.eager) {
                self.pump(index)?;
            }
            events.clear();
            let wait = self.wait();
            let wait = rustix::event::Timespec {
                tv_sec: wait.as_secs() as i64,
                tv_nsec: i64::from(wait.subsec_nanos()),
            };
            epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&wait))?;
            for event in &events {
                let id = event.data.u64() as usize;
                match id.checked_sub(self.producers.len()) {
                    None => self.serve_producer(id)?,
                    Some(consumer) => self.serve_consumer(consumer)?,
                }
            }
        }
        Ok(())
    }

    /// Until the next batch is due, or until phases are to be looked at.
    fn wait(&self) -> Duration {
        if !self.eager.is_empty() {
            return Duration::ZERO;
        }
        match self.schedule {
            Some(schedule) if self.phase != Phase::Drain => {
                schedule.due(self.taken_up).saturating_sub(self.now()).min(TICK)
            }
            _ => TICK,
        }
    }

    fn take_up_due(&mut self) -> io::Result<()> {
        let Some(schedule) = self.schedule else { return Ok(()) };
        if self.phase == Phase::Drain || self.producers.is_empty() {
            return Ok(());
        }
        let now = self.now();
        for number in self.taken_up..schedule.due_by(now) {
            let due = schedule.due(number);
            self.tally.taken_up(due, now);
            let index = (number % self.producers.len() as u64) as usize;
            self.producers[index].take_on(due);
            self.taken_up = number + 1;
            self.pump(index)?;
        }
        Ok(())
    }

    fn pump(&mut self, index: usize) -> io::Result<()> {
        let now = self.now();
        let (due, end_to_end, records) = (&mut self.due, self.task.end_to_end, u64::from(self.task.records));
        let counted = &mut self.records;
        let is_eager = self.producers[index].pump(now, &mut self.tally, |sent| {
            *counted += records;
            if end_to_end {
                due[sent.partition as usize].push(sent.due);
            }
        })?;
        if is_eager {
            self.eager.insert(index);
        }
        Ok(())
    }

    fn serve_producer(&mut self, index: usize) -> io::Result<()> {
        let now = self.now();
        self.producers[index].receive(now, &mut self.tally, !self.task.end_to_end)?;
        self.pump(index)
    }

    fn serve_consumer(&mut self, index: usize) -> io::Result<()> {
        let now = self.now();
        let (tally, due, records) = (&mut self.tally, &self.due, i64::from(self.task.records));
        let (bases, fetched, end_to_end) = (&self.bases, &mut self.fetched, self.task.end_to_end);
        let consumer = &mut self.consumers[index];
        consumer.connection.send()?;
        consumer.receive(|got| {
            tally.fetched(now, (got.to - got.from) as u64);
            *fetched += (got.to - got.from) as u64;
            if end_to_end {
                let base = bases[got.partition];
                for batch in (got.from - base) / records..(got.to - base) / records {
                    if let Some(due) = due[got.partition].get(batch as usize) {
                        tally.answered(*due, now);
                    }
                }
            }
        })
    }

    /// Whether the run goes on.
    fn advance_phase(&mut self) -> io::Result<bool> {
        let (now, in_phase) = (self.now(), self.now() - self.phase_began);
        if now >= self.next_progress {
            self.next_progress = now + PROGRESS_EVERY;
            let records = if self.producers.is_empty() { self.fetched } else { self.records };
            tell(&json!({"t": "progress", "records": records}))?;
        }
        let bytes = (self.records - self.records_before_phase) * self.task.value_bytes as u64;
        let is_full = bytes >= self.task.phase_bytes_max;
        let is_over = match self.phase {
            Phase::Warm => in_phase >= self.task.warm || is_full,
            Phase::Measured => in_phase >= self.task.measured || is_full || self.is_at_end(),
            Phase::Drain => in_phase >= DRAIN_MAX || self.is_drained(),
        };
        if !is_over {
            return Ok(true);
        }
        self.phase_began = now;
        self.records_before_phase = self.records;
        match self.phase {
            Phase::Warm => {
                self.phase = Phase::Measured;
                if self.task.acks == 0 {
                    self.records_at_opening = asking::records(self.task)?;
                }
                if self.task.sheds {
                    self.shed_at_opening = asking::records_before(self.task)?;
                }
                self.tally.open(self.now());
                tell(&json!({"t": "measuring"}))?;
            }
            Phase::Measured => {
                self.phase = Phase::Drain;
                self.tally.close(now);
                tell(&json!({"t": "closed"}))?;
                if self.task.acks == 0 {
                    // What a socket took may still lie in a buffer; what the broker has is what counts.
                    let records = asking::records(self.task)? - self.records_at_opening;
                    self.tally.produced_records = records.max(0) as u64;
                }
                if self.task.sheds {
                    let shed = asking::records_before(self.task)?;
                    self.shed_in_window = shed.saturating_sub(self.shed_at_opening);
                }
                self.producers.iter_mut().for_each(Producer::end);
            }
            Phase::Drain => {
                self.count_left(now);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_at_end(&self) -> bool {
        self.task.to_the_end && self.consumers.iter().all(|consumer| consumer.is_at_end)
    }

    fn is_drained(&self) -> bool {
        let records = i64::from(self.task.records);
        self.producers.iter().all(Producer::is_idle)
            && (!self.task.end_to_end
                || self.consumers.iter().all(|consumer| {
                    let mut places = consumer.offsets.iter().zip(&self.bases).zip(&self.due);
                    places.all(|((offset, base), due)| *offset - base >= due.len() as i64 * records)
                }))
    }

    /// What never came counts with its age.
    fn count_left(&mut self, now: Duration) {
        if self.task.end_to_end {
            for consumer in &self.consumers {
                for ((offset, base), due) in consumer.offsets.iter().zip(&self.bases).zip(&self.due) {
                    let seen = ((*offset - base) / i64::from(self.task.records)) as usize;
                    due.iter().skip(seen).for_each(|due| self.tally.left(*due, now));
                }
            }
            // What was never sent no consumer could see; it was due all the same.
            let waiting = self.producers.iter().flat_map(Producer::unsent);
            waiting.for_each(|due| self.tally.left(due, now));
        } else {
            self.producers.iter().flat_map(Producer::left).for_each(|due| self.tally.left(due, now));
        }
    }
}

fn tell(event: &Value) -> io::Result<()> {
    println!("{event}");
    io::stdout().flush()
}
