//! Who works in a pool of processes: the state that its threads share.
//!
//! Four kinds of threads meet here. The *supervisor* starts workers and kills those whose time is over; it is one thread
//! that lives as long as any worker does, because a worker is told to die with the thread that started it. A *keeper*
//! reads what its worker sends, and reaps it. A *driver* gives jobs to the worker of its slot. Whoever *closes* the pool
//! waits until nothing can be started any more.
//!
//! Every start has an incarnation number that is never used again, so that what is said of a dead worker is not held
//! against its successor.
//!
//! There are two times. Deadlines of jobs are by the clock, as whoever waits for them is. The patience with workers is
//! measured in time [awake](super::awake).

use std::fmt;
use std::time::{Duration, Instant};

use super::awake::Awake;
use super::frame::{Tag, VERSION};
use super::supervisor::{Next, RestartPolicy, Supervisor};
use crate::sync::{Condvar, Deadline, Mutex, lock, wait};

/// Time since the pool was made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    Since(Instant),
    /// Milliseconds that a test sets.
    #[cfg(all(test, not(any(ferroyolo_loom, ferroyolo_shuttle))))]
    Set(&'static std::sync::atomic::AtomicU64),
    /// For models, in which no time passes.
    #[cfg(all(test, any(ferroyolo_loom, ferroyolo_shuttle)))]
    Still,
}

impl Clock {
    pub(crate) fn now(self) -> Duration {
        match self {
            Clock::Since(start) => start.elapsed(),
            #[cfg(all(test, not(any(ferroyolo_loom, ferroyolo_shuttle))))]
            Clock::Set(ms) => Duration::from_millis(ms.load(std::sync::atomic::Ordering::SeqCst)),
            #[cfg(all(test, any(ferroyolo_loom, ferroyolo_shuttle)))]
            Clock::Still => Duration::ZERO,
        }
    }

    fn deadline(self, at: Option<Duration>) -> Deadline {
        match (self, at) {
            #[cfg(not(all(test, any(ferroyolo_loom, ferroyolo_shuttle))))]
            (Clock::Since(start), Some(at)) => start.checked_add(at).map_or(Deadline::Never, Deadline::At),
            _ => Deadline::Never,
        }
    }
}

/// How long to wait for what workers should do.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// From the start until a worker takes jobs.
    pub(crate) start: Duration,
    /// Between two signs of life.
    pub(crate) silence: Duration,
    /// From being told to leave until being made to.
    pub(crate) grace: Duration,
}

/// Why a worker's life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// By itself: a signal, or an exit that nobody asked for.
    Crashed,
    OutOfMemory,
    Protocol(String),
    Incompatible(u32),
    /// It could not take jobs, and why.
    NotReady(String),
    /// It could not be started at all.
    NotStarted(String),
    /// No sign of life came from it.
    Silent,
    /// It was killed at a job's deadline.
    Deadline,
    /// Its handler panicked; it left by itself.
    Panicked,
    /// The pool was closed.
    Closed,
}

impl Reason {
    /// For metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Reason::Crashed => "crashed",
            Reason::OutOfMemory => "out_of_memory",
            Reason::Protocol(_) => "protocol",
            Reason::Incompatible(_) => "incompatible",
            Reason::NotReady(_) | Reason::NotStarted(_) => "not_started",
            Reason::Silent => "silent",
            Reason::Deadline => "deadline",
            Reason::Panicked => "panicked",
            Reason::Closed => "closed",
        }
    }
}

/// What is known of a dead worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) reason: Reason,
    pub(crate) signal: Option<i32>,
    pub(crate) code: Option<i32>,
    /// The end of what it wrote to its standard error.
    pub(crate) stderr: String,
    /// Whether the job that it ran had no part in it.
    pub(crate) is_blameless: bool,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::NotStarted(why) => return write!(f, "it could not be started: {why}"),
            Reason::NotReady(why) => return write!(f, "it could not take jobs: {why}"),
            Reason::Protocol(what) => return write!(f, "it broke the protocol: {what}"),
            Reason::Incompatible(got) => {
                return write!(f, "it speaks version {got} of the protocol, expected {VERSION}");
            }
            Reason::OutOfMemory => return f.write_str("it ran out of memory"),
            Reason::Silent => return f.write_str("it gave no sign of life"),
            Reason::Deadline => return f.write_str("it was killed at a deadline"),
            Reason::Panicked => return f.write_str("its handler panicked"),
            Reason::Closed => return f.write_str("the pool was closed"),
            Reason::Crashed => {}
        }
        match (self.signal, self.code) {
            (Some(signal), _) => write!(f, "it was killed by signal {signal}")?,
            (None, Some(code)) => write!(f, "it exited with code {code}")?,
            (None, None) => f.write_str("it died")?,
        }
        self.stderr.lines().next_back().map_or(Ok(()), |line| write!(f, ": {line}"))
    }
}

impl Death {
    pub(crate) fn of(reason: Reason) -> Death {
        Death { reason, signal: None, code: None, stderr: String::new(), is_blameless: false }
    }
}

/// What became of an attempt at a job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done(Vec<u8>),
    App(String),
    Panicked(String),
    TimedOut,
    Died(Death),
}

/// Whether a slot can take a job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Ready,
    /// No worker is there and none is to come soon, for this reason.
    Hopeless(Hopeless),
    Closed,
}

/// Why nobody can work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hopeless {
    CircuitOpen,
    Incompatible(u32),
}

/// What the supervisor has to do.
#[derive(Debug)]
pub(crate) enum Action<H> {
    /// Start a worker and say so with [`Roster::spawned`] or [`Roster::not_spawned`].
    Spawn {
        slot: usize,
        incarnation: u64,
    },
    Kill(H),
    /// The pool is closed and no worker is left.
    Stop,
}

/// What to do with a reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    /// It came too late, or from a worker that is given up.
    Dropped,
    /// Nobody asked for it: the worker has to die.
    Unasked {
        /// Whether it repeats the last answer, so that a job given since has no part in it.
        is_repeated: bool,
    },
}

/// Numbers for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Dead workers, by reason.
    pub(crate) deaths: Vec<(&'static str, u64)>,
    /// Workers that were started.
    pub(crate) n_started: u64,
    pub(crate) n_late_replies: u64,
    pub(crate) n_deadline_kills: u64,
    pub(crate) n_ready: usize,
    pub(crate) n_starting: usize,
    pub(crate) n_down: usize,
    pub(crate) is_circuit_open: bool,
    /// What a worker died of last, if it should not have.
    pub(crate) last_failure: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Roster<H> {
    state: Mutex<State<H>>,
    /// Notified when the supervisor has something to do.
    work: Condvar,
    /// Notified when a driver's slot changes.
    slots: Vec<Condvar>,
    /// Notified when a start has been completed.
    spawned: Condvar,
    clock: Clock,
    patience: Patience,
}

#[derive(Debug)]
struct State<H> {
    supervisor: Supervisor,
    awake: Awake,
    slots: Vec<Slot<H>>,
    next_incarnation: u64,
    is_spawning: bool,
    is_closed: bool,
    /// The version that workers speak, if it is another one.
    incompatible: Option<u32>,
    /// When the supervisor will look again by itself.
    wake_at: Option<Duration>,
    tally: Tally,
}

#[derive(Debug)]
struct Slot<H> {
    incarnation: u64,
    life: Life<H>,
    /// When the present life began, or was last heard of, in time awake.
    heard: Duration,
    ready_since: Duration,
    is_proven: bool,
    job: Option<Running>,
    last: Option<Tag>,
    answer: Option<Answer>,
}

/// What a worker is at. It has to be done `by` a time awake.
#[derive(Debug)]
enum Life<H> {
    Down,
    Spawning,
    Starting {
        worker: H,
        by: Duration,
    },
    Ready(H),
    /// It was told to leave, or said that it would.
    Leaving {
        worker: H,
        by: Duration,
        reason: Reason,
    },
    /// It was killed, or will be by the supervisor's next look.
    Doomed {
        worker: H,
        reason: Reason,
    },
}

#[derive(Debug)]
struct Running {
    tag: Tag,
    deadline: Option<Duration>,
}

impl<H: Clone> Roster<H> {
    pub(crate) fn new(
        n_slots: usize,
        policy: RestartPolicy,
        seed: u64,
        patience: Patience,
        clock: Clock,
    ) -> Roster<H> {
        let slot = |_| Slot {
            incarnation: 0,
            life: Life::Down,
            heard: Duration::ZERO,
            ready_since: Duration::ZERO,
            is_proven: false,
            job: None,
            last: None,
            answer: None,
        };
        Roster {
            state: Mutex::new(State {
                supervisor: Supervisor::new(policy, n_slots, seed),
                awake: Awake::new([patience.start, patience.silence, patience.grace]),
                slots: (0..n_slots).map(slot).collect(),
                next_incarnation: 1,
                is_spawning: false,
                is_closed: false,
                incompatible: None,
                wake_at: None,
                tally: Tally::default(),
            }),
            work: Condvar::new(),
            slots: (0..n_slots).map(|_| Condvar::new()).collect(),
            spawned: Condvar::new(),
            clock,
            patience,
        }
    }

    // For the supervisor.

    /// Waits for something to do.
    pub(crate) fn next(&self) -> Action<H> {
        let mut state = lock(&self.state);
        loop {
            if let Some(action) = self.look(&mut state, self.clock.now()) {
                return action;
            }
            let deadline = self.clock.deadline(state.wake_at);
            state = wait(&self.work, state, &deadline);
        }
    }

    /// What has to be done now, if anything; else when to look again is noted.
    fn look(&self, state: &mut State<H>, now: Duration) -> Option<Action<H>> {
        let awake = state.awake.look(now);
        if let Some(worker) = self.overdue(state, now, awake) {
            return Some(Action::Kill(worker));
        }
        if state.is_closed && state.slots.iter().all(|slot| matches!(slot.life, Life::Down)) {
            return Some(Action::Stop);
        }
        let was_open = state.supervisor.is_open();
        let next = if state.incompatible.is_some() { Next::Idle } else { state.supervisor.next(now) };
        let start_at = match next {
            Next::Start(slot) => {
                let incarnation = state.next_incarnation;
                state.next_incarnation += 1;
                state.is_spawning = true;
                state.tally.n_started += 1;
                state.slots[slot].begin(incarnation, now, awake);
                if was_open {
                    self.wake_drivers();
                }
                return Some(Action::Spawn { slot, incarnation });
            }
            Next::At(at) => Some(at),
            Next::Idle => None,
        };
        state.wake_at = start_at.into_iter().chain(self.next_overdue(state, now, awake)).min();
        None
    }

    /// The worker has been started. If the pool was closed meanwhile it is handed back, to be killed.
    pub(crate) fn spawned(&self, slot: usize, worker: H) -> Result<(), H> {
        let mut state = lock(&self.state);
        let awake = state.awake.look(self.clock.now());
        state.is_spawning = false;
        self.spawned.notify_all();
        state.slots[slot].heard = awake;
        if state.is_closed {
            state.slots[slot].life = Life::Doomed { worker: worker.clone(), reason: Reason::Closed };
            return Err(worker);
        }
        state.slots[slot].life = Life::Starting { worker, by: awake.saturating_add(self.patience.start) };
        Ok(())
    }

    /// The worker could not be started.
    pub(crate) fn not_spawned(&self, slot: usize, why: String) {
        let mut state = lock(&self.state);
        state.is_spawning = false;
        self.spawned.notify_all();
        self.bury(&mut state, slot, Death::of(Reason::NotStarted(why)));
    }

    /// Decides who has to be killed, and who has proven to work.
    fn overdue(&self, state: &mut State<H>, now: Duration, awake: Duration) -> Option<H> {
        let healthy_after = state.supervisor.policy().healthy_after;
        let mut n_deadlines = 0;
        let mut doomed = None;
        for idx in 0..state.slots.len() {
            let slot = &mut state.slots[idx];
            let is_silent = awake >= slot.heard.saturating_add(self.patience.silence);
            let reason = match &slot.life {
                Life::Starting { by, .. } if awake >= *by => {
                    Reason::NotReady("it was not ready in time".to_owned())
                }
                Life::Ready(_) if slot.job.as_ref().is_some_and(|job| job.is_over(now)) => Reason::Deadline,
                Life::Ready(_) if is_silent => Reason::Silent,
                Life::Leaving { by, reason, .. } if awake >= *by => reason.clone(),
                Life::Ready(_)
                    if !slot.is_proven
                        && slot.job.is_none()
                        && now >= slot.ready_since.saturating_add(healthy_after) =>
                {
                    slot.is_proven = true;
                    state.supervisor.healthy(idx);
                    continue;
                }
                _ => continue,
            };
            if reason == Reason::Deadline {
                n_deadlines += 1;
                slot.last = slot.job.take().map(|job| job.tag);
                slot.answer = Some(Answer::TimedOut);
                self.slots[idx].notify_all();
            }
            doomed = slot.doom(reason);
            break;
        }
        state.tally.n_deadline_kills += n_deadlines;
        doomed
    }

    /// When somebody may have to be killed next, or has proven to work, if nothing happens until then; by the clock, and
    /// not later than the next look has to be made.
    fn next_overdue(&self, state: &State<H>, now: Duration, awake: Duration) -> Option<Duration> {
        let healthy_after = state.supervisor.policy().healthy_after;
        let tick = state.awake.tick();
        let when = |by: Duration| now.saturating_add(by.saturating_sub(awake).min(tick));
        let of = |slot: &Slot<H>| match &slot.life {
            Life::Starting { by, .. } | Life::Leaving { by, .. } => Some(when(*by)),
            Life::Ready(_) => {
                let proof = (!slot.is_proven && slot.job.is_none())
                    .then(|| slot.ready_since.saturating_add(healthy_after));
                let deadline = slot.job.as_ref().and_then(|job| job.deadline);
                let silence = when(slot.heard.saturating_add(self.patience.silence));
                Some(silence).into_iter().chain(proof).chain(deadline).min()
            }
            Life::Down | Life::Spawning | Life::Doomed { .. } => None,
        };
        state.slots.iter().filter_map(of).min()
    }

    // For keepers.

    /// The worker is alive.
    pub(crate) fn heard(&self, slot: usize, incarnation: u64) {
        let mut state = lock(&self.state);
        let awake = state.awake.look(self.clock.now());
        if let Some(slot) = state.slot(slot, incarnation) {
            slot.heard = awake;
        }
    }

    /// The worker takes jobs. Returns false if it may not say so now.
    pub(crate) fn ready(&self, slot: usize, incarnation: u64) -> bool {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        let awake = state.awake.look(now);
        let Some(of) = state.slot(slot, incarnation) else { return true };
        match &of.life {
            Life::Starting { worker, .. } => {
                of.life = Life::Ready(worker.clone());
                (of.heard, of.ready_since) = (awake, now);
                self.slots[slot].notify_all();
                self.work.notify_all();
                true
            }
            Life::Ready(_) => false,
            _ => true,
        }
    }

    /// The worker answers.
    pub(crate) fn answer(&self, slot: usize, incarnation: u64, tag: Tag, answer: Answer) -> Verdict {
        let mut state = lock(&self.state);
        let awake = state.awake.look(self.clock.now());
        let Some(of) = state.slot(slot, incarnation) else { return Verdict::Dropped };
        of.heard = awake;
        if of.job.as_ref().is_some_and(|job| job.tag == tag) && matches!(of.life, Life::Ready(_)) {
            of.job = None;
            of.last = Some(tag);
            if let (Answer::Panicked(_), Life::Ready(worker)) = (&answer, &of.life) {
                let by = awake.saturating_add(self.patience.grace);
                of.life = Life::Leaving { worker: worker.clone(), by, reason: Reason::Panicked };
                self.work.notify_all();
            }
            of.answer = Some(answer);
            of.is_proven = true;
            self.slots[slot].notify_all();
            let was_open = state.supervisor.is_open();
            state.supervisor.healthy(slot);
            if was_open {
                self.work.notify_all();
            }
            return Verdict::Accepted;
        }
        let is_repeated = of.last == Some(tag);
        match &of.life {
            Life::Doomed { reason, .. } => {
                if *reason == Reason::Deadline && is_repeated {
                    of.last = None;
                    state.tally.n_late_replies += 1;
                }
                Verdict::Dropped
            }
            _ => Verdict::Unasked { is_repeated },
        }
    }

    /// The worker has to die, for this reason, if there is none yet. The keeper kills it.
    pub(crate) fn doom(&self, slot: usize, incarnation: u64, reason: Reason) {
        let mut state = lock(&self.state);
        if let Some(slot) = state.slot(slot, incarnation) {
            let _worker = slot.doom(reason);
        }
    }

    /// The worker is dead and has been reaped. Its reason is overruled by the one that it was killed for.
    pub(crate) fn died(&self, slot: usize, incarnation: u64, death: Death) {
        let mut state = lock(&self.state);
        if state.slot(slot, incarnation).is_some() {
            self.bury(&mut state, slot, death);
        }
    }

    fn bury(&self, state: &mut State<H>, idx: usize, mut death: Death) {
        let now = self.clock.now();
        let slot = &mut state.slots[idx];
        match std::mem::replace(&mut slot.life, Life::Down) {
            Life::Leaving { reason, .. } | Life::Doomed { reason, .. } => death.reason = reason,
            _ => {}
        }
        if let Reason::Incompatible(got) = death.reason {
            state.incompatible = Some(got);
        }
        let label = death.reason.label();
        match state.tally.deaths.iter_mut().find(|(known, _)| *known == label) {
            Some((_, n)) => *n += 1,
            None => state.tally.deaths.push((label, 1)),
        }
        if death.reason != Reason::Closed {
            state.tally.last_failure = Some(death.to_string());
        }
        // A worker that was ready and had a job started well: its death is the job's affair.
        let was_healthy = slot.is_proven || slot.job.is_some();
        if slot.job.take().is_some() {
            slot.answer = Some(Answer::Died(death));
        }
        state.supervisor.died(idx, was_healthy, now);
        self.work.notify_all();
        self.wake_drivers();
    }

    // For drivers.

    /// Waits until the slot's worker takes jobs, or it is known that it will not.
    pub(crate) fn wait_ready(&self, slot: usize) -> Gate {
        let mut state = lock(&self.state);
        loop {
            if state.is_closed {
                return Gate::Closed;
            }
            if matches!(state.slots[slot].life, Life::Ready(_)) {
                return Gate::Ready;
            }
            if let Some(why) = state.hopeless() {
                return Gate::Hopeless(why);
            }
            state = wait(&self.slots[slot], state, &Deadline::Never);
        }
    }

    /// Why no job can be run, if so.
    pub(crate) fn hopeless(&self) -> Option<Hopeless> {
        lock(&self.state).hopeless()
    }

    /// Gives a job to the slot's worker; `None` if it takes none now. To be followed by [`Roster::await_answer`].
    pub(crate) fn assign(&self, slot: usize, tag: Tag, deadline: Option<Duration>) -> Option<H> {
        let mut state = lock(&self.state);
        let of = &mut state.slots[slot];
        let Life::Ready(worker) = &of.life else { return None };
        let worker = worker.clone();
        of.job = Some(Running { tag, deadline });
        of.answer = None;
        if deadline.is_some_and(|at| state.wake_at.is_none_or(|known| at < known)) {
            self.work.notify_all();
        }
        Some(worker)
    }

    /// Waits for what becomes of the job given last.
    pub(crate) fn await_answer(&self, slot: usize) -> Answer {
        let mut state = lock(&self.state);
        loop {
            if let Some(answer) = state.slots[slot].answer.take() {
                return answer;
            }
            state = wait(&self.slots[slot], state, &Deadline::Never);
        }
    }

    // For whoever owns the pool.

    /// Sees to it that nothing is started any more, and returns those who have to be told to leave, and those who have
    /// to be killed because they still run a job.
    pub(crate) fn close(&self) -> (Vec<H>, Vec<H>) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        state.supervisor.close();
        while state.is_spawning {
            state = wait(&self.spawned, state, &Deadline::Never);
        }
        let by = state.awake.look(self.clock.now()).saturating_add(self.patience.grace);
        let (mut idle, mut busy) = (Vec::new(), Vec::new());
        for slot in &mut state.slots {
            match &slot.life {
                Life::Ready(worker) if slot.job.is_none() => {
                    let worker = worker.clone();
                    idle.push(worker.clone());
                    slot.life = Life::Leaving { worker, by, reason: Reason::Closed };
                }
                Life::Starting { .. } | Life::Ready(_) => busy.extend(slot.doom(Reason::Closed)),
                Life::Down | Life::Spawning | Life::Leaving { .. } | Life::Doomed { .. } => {}
            }
        }
        self.work.notify_all();
        self.wake_drivers();
        (idle, busy)
    }

    /// All workers that have not been reaped.
    pub(crate) fn workers(&self) -> Vec<H> {
        lock(&self.state).slots.iter().filter_map(|slot| slot.worker().cloned()).collect()
    }

    pub(crate) fn tally(&self) -> Tally {
        let state = lock(&self.state);
        let count = |is: fn(&Life<H>) -> bool| state.slots.iter().filter(|slot| is(&slot.life)).count();
        Tally {
            n_ready: count(|life| matches!(life, Life::Ready(_))),
            n_starting: count(|life| matches!(life, Life::Spawning | Life::Starting { .. })),
            n_down: count(|life| matches!(life, Life::Down | Life::Leaving { .. } | Life::Doomed { .. })),
            is_circuit_open: state.supervisor.is_open(),
            ..state.tally.clone()
        }
    }

    fn wake_drivers(&self) {
        self.slots.iter().for_each(Condvar::notify_all);
    }
}

impl<H> State<H> {
    /// The slot, unless another worker has it by now.
    fn slot(&mut self, slot: usize, incarnation: u64) -> Option<&mut Slot<H>> {
        Some(&mut self.slots[slot]).filter(|slot| slot.incarnation == incarnation)
    }

    /// Nobody works, and nobody will before the circuit closes.
    fn hopeless(&self) -> Option<Hopeless> {
        let is_anybody_there = self.slots.iter().any(|slot| !matches!(slot.life, Life::Down));
        if is_anybody_there {
            return None;
        }
        match self.incompatible {
            Some(got) => Some(Hopeless::Incompatible(got)),
            None => self.supervisor.is_open().then_some(Hopeless::CircuitOpen),
        }
    }
}

impl<H: Clone> Slot<H> {
    fn begin(&mut self, incarnation: u64, now: Duration, awake: Duration) {
        *self = Slot {
            incarnation,
            life: Life::Spawning,
            heard: awake,
            ready_since: now,
            is_proven: false,
            job: None,
            last: None,
            answer: self.answer.take(),
        };
    }

    fn worker(&self) -> Option<&H> {
        match &self.life {
            Life::Down | Life::Spawning => None,
            Life::Starting { worker, .. }
            | Life::Ready(worker)
            | Life::Leaving { worker, .. }
            | Life::Doomed { worker, .. } => Some(worker),
        }
    }

    /// Marks the worker as one to be killed; `None` if there is none, or if it is marked already.
    fn doom(&mut self, reason: Reason) -> Option<H> {
        if matches!(self.life, Life::Doomed { .. }) {
            return None;
        }
        let worker = self.worker()?.clone();
        self.life = Life::Doomed { worker: worker.clone(), reason };
        Some(worker)
    }
}

impl Running {
    fn is_over(&self, now: Duration) -> bool {
        self.deadline.is_some_and(|at| now >= at)
    }
}

#[cfg(all(test, not(any(ferroyolo_loom, ferroyolo_shuttle))))]
mod tests;
