//! The accounting of a queue: which jobs are accepted, queued, running and done, and who waits for what.
//!
//! Nothing here runs a job. Whoever does, a worker's thread or the driver of a worker's process, claims one and finishes
//! it. One mutex guards everything, the counts included, so that `accepted = completed + failed + queued + running` is
//! true whenever it is free. Values of callers are dropped after it is unlocked, because dropping runs their code.
//!
//! A claim is known by its [`Key`]: the job and the generation of the claim. A generation is never used twice, and a job
//! has at most one that counts; so the answer to an attempt that was given up, however late, is told from the
//! answer to the present one, and dropped.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::discard;
use super::submit::Rejected;
use crate::error::JobError;
use crate::metrics::{Counters, Metrics, Workers};
use crate::sync::{Arc, Condvar, Deadline, Mutex, MutexGuard, lock, wait};
use crate::wait_list::{WaitList, wait_for_grant};

/// What became of a job.
pub(crate) type Outcome<O> = Result<O, JobError>;

/// The state of a queue, and those who wait for it to change.
#[derive(Debug)]
pub(crate) struct Core<J, O> {
    state: Mutex<State<J, O>>,
    /// Notified when the queue is over, and when a worker checks in after that.
    over: Condvar,
    /// Notified when the next deadline comes earlier than the keeper of time thinks, and when the queue is over.
    timer: Condvar,
}

/// One attempt at one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) id: u64,
    pub(crate) generation: u64,
}

/// What a worker that asks for a job gets.
#[derive(Debug)]
pub(crate) enum Claimed<'a, J, O> {
    Job(Claim<'a, J, O>, J),
    /// The worker's patience ended first.
    Nothing,
    /// No job is left and none will come.
    Over,
}

/// The right and the duty to answer one job. Dropped without an answer, it answers that the worker died.
#[derive(Debug)]
pub(crate) struct Claim<'a, J, O> {
    core: &'a Core<J, O>,
    key: Key,
    attempt: u32,
    deadline: Deadline,
    since: Instant,
    checked_in: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    /// No job is accepted any more; the accepted ones run.
    Closed,
    /// Nor is any begun.
    Stopped,
}

#[derive(Debug)]
struct State<J, O> {
    name: String,
    capacity: usize,
    phase: Phase,
    next_id: u64,
    next_generation: u64,
    /// Accepted jobs without an outcome; no more than the capacity and one for each worker.
    live: BTreeMap<u64, Live<J>>,
    /// Which of them wait for a worker, in the order in which they will run.
    queue: VecDeque<u64>,
    n_running: usize,
    /// Outcomes that their tickets have not fetched.
    outcomes: BTreeMap<u64, Outcome<O>>,
    /// Places that were granted to submitters who have not woken up yet.
    n_reserved: usize,
    /// Submitters who wait for a place.
    places: WaitList<()>,
    /// Workers who wait for a job. Being granted means to look again.
    idle: WaitList<()>,
    /// Claims that have not been checked in, those included that nobody waits for any more.
    n_busy: usize,
    n_workers: usize,
    /// What the keeper of time waits for.
    timer_at: Option<Instant>,
    counters: Counters,
}

#[derive(Debug)]
struct Live<J> {
    stage: Stage<J>,
    attempt: u32,
    deadline: Deadline,
    queued_at: Instant,
    /// Whether its ticket still exists.
    is_wanted: bool,
    /// Wakes whoever waits for the outcome.
    waiter: Option<Arc<Condvar>>,
}

#[derive(Debug)]
enum Stage<J> {
    Queued(J),
    Running { generation: u64 },
}

/// Values of callers, to be dropped when the mutex is free.
struct Trash<J, O> {
    jobs: Vec<J>,
    outcomes: Vec<Outcome<O>>,
}

impl<J, O> Core<J, O> {
    /// A queue in which `capacity` jobs may wait, for `n_workers` to come.
    pub(crate) fn new(name: String, capacity: usize, n_workers: usize) -> Core<J, O> {
        Core {
            state: Mutex::new(State {
                name,
                capacity,
                phase: Phase::Open,
                next_id: 0,
                next_generation: 0,
                live: BTreeMap::new(),
                queue: VecDeque::new(),
                n_running: 0,
                outcomes: BTreeMap::new(),
                n_reserved: 0,
                places: WaitList::new(),
                idle: WaitList::new(),
                n_busy: 0,
                n_workers,
                timer_at: None,
                counters: Counters::default(),
            }),
            over: Condvar::new(),
            timer: Condvar::new(),
        }
    }

    /// Accepts a job, after waiting for a place in the order of arrival until `patience` passes. Returns the job's id.
    ///
    /// The job has to be done when `deadline` passes.
    pub(crate) fn submit(&self, job: J, deadline: Deadline, patience: &Deadline) -> Result<u64, Rejected<J>> {
        let mut state = lock(&self.state);
        if state.phase == Phase::Open && !state.has_place() {
            let granted;
            (state, granted) = wait_for_grant(state, |state| &mut state.places, patience);
            match granted {
                Some(()) => state.n_reserved -= 1,
                None => return Err(Rejected::Full(job)),
            }
        }
        if state.phase != Phase::Open {
            return Err(Rejected::Closed(job));
        }
        let id = state.accept(job, deadline);
        if state.wakes_timer(id) {
            self.timer.notify_one();
        }
        self.settle(state, Trash::new());
        Ok(id)
    }

    /// Accepts a job if there is a place for it and nobody waits for one.
    pub(crate) fn try_submit(&self, job: J, deadline: Deadline) -> Result<u64, Rejected<J>> {
        let mut state = lock(&self.state);
        if state.phase != Phase::Open {
            return Err(Rejected::Closed(job));
        }
        if !state.has_place() {
            return Err(Rejected::Full(job));
        }
        let id = state.accept(job, deadline);
        if state.wakes_timer(id) {
            self.timer.notify_one();
        }
        self.settle(state, Trash::new());
        Ok(id)
    }

    /// Takes the next job, waiting for one until `patience` passes.
    ///
    /// A queue that is closed is over only when nothing runs: a job that runs may yet come back for another attempt.
    pub(crate) fn claim(&self, patience: &Deadline) -> Claimed<'_, J, O> {
        let mut state = lock(&self.state);
        loop {
            let mut trash = Trash::new();
            let next = state.start_next(&mut trash);
            if next.is_none() && trash.is_empty() {
                if state.is_over() {
                    return Claimed::Over;
                }
                let woken;
                (state, woken) = wait_for_grant(state, |state| &mut state.idle, patience);
                if woken.is_none() {
                    return Claimed::Nothing;
                }
                continue;
            }
            self.settle(state, trash);
            if let Some(started) = next {
                let Started { key, attempt, deadline, job } = started;
                let since = Instant::now();
                return Claimed::Job(
                    Claim { core: self, key, attempt, deadline, since, checked_in: false },
                    job,
                );
            }
            state = lock(&self.state);
        }
    }

    /// As [`Claim::retry`], by somebody else than the holder of the claim, who keeps it and may answer it late.
    #[cfg(test)]
    pub(crate) fn retry(&self, key: Key, job: J) -> bool {
        let mut trash = Trash::new();
        let mut state = lock(&self.state);
        let requeued = state.retry(key, job, &mut trash);
        self.settle(state, trash);
        requeued
    }

    /// Resolves every job whose deadline has passed, queued or running. Returns when the next one will.
    pub(crate) fn expire(&self) -> Option<Instant> {
        let mut trash = Trash::new();
        let mut state = lock(&self.state);
        state.expire(&mut trash);
        let next = state.next_deadline();
        self.settle(state, trash);
        next
    }

    /// Resolves jobs at their deadlines until the queue is over. For a thread of its own.
    pub(crate) fn keep_time(&self) {
        loop {
            self.expire();
            let mut state = lock(&self.state);
            loop {
                if state.is_over() {
                    return;
                }
                let next = state.next_deadline();
                state.timer_at = next;
                let until = next.map_or(Deadline::Never, Deadline::At);
                if until.has_passed() {
                    break;
                }
                state = wait(&self.timer, state, &until);
            }
        }
    }

    /// Accepts no more jobs; whoever waits for a place gets its job back.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.close();
        self.settle(state, Trash::new());
    }

    /// Closes, and answers what is queued with what `error` makes. Returns how many jobs that were.
    pub(crate) fn stop(&self, error: impl Fn() -> JobError) -> usize {
        let mut trash = Trash::new();
        let mut state = lock(&self.state);
        state.close();
        state.phase = Phase::Stopped;
        let n = state.fail_queued(&error, &mut trash);
        self.settle(state, trash);
        n
    }

    /// Stops, and answers what is running as well; what it gives later is dropped.
    pub(crate) fn abort(&self, error: impl Fn() -> JobError) -> usize {
        let mut trash = Trash::new();
        let mut state = lock(&self.state);
        state.close();
        state.phase = Phase::Stopped;
        let mut n = state.fail_queued(&error, &mut trash);
        let running: Vec<u64> = state.live.keys().copied().collect();
        for id in running {
            state.resolve(id, Err(error()), &mut trash);
            n += 1;
        }
        self.settle(state, trash);
        n
    }

    /// Waits until the queue is closed, every job has its outcome and every worker has checked in.
    ///
    /// Returns false if `deadline` passed first.
    pub(crate) fn wait_over(&self, deadline: &Deadline) -> bool {
        let mut state = lock(&self.state);
        while !(state.is_over() && state.n_busy == 0) {
            if deadline.has_passed() {
                return false;
            }
            state = wait(&self.over, state, deadline);
        }
        true
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).phase != Phase::Open
    }

    /// Waits for the outcome of job `id` and takes it; `None` if `deadline` passed first. Once for each job.
    pub(crate) fn wait_outcome(&self, id: u64, deadline: &Deadline) -> Option<Outcome<O>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(outcome) = state.outcomes.remove(&id) {
                return Some(outcome);
            }
            if deadline.has_passed() {
                return None;
            }
            let wake = state.waiter(id);
            state = wait(&wake, state, deadline);
        }
    }

    /// Gives job `id` the outcome `Cancelled`, if it has none yet; says whether it did.
    pub(crate) fn cancel(&self, id: u64) -> bool {
        let mut trash = Trash::new();
        let mut state = lock(&self.state);
        let cancelled = state.live.contains_key(&id);
        if cancelled {
            state.unqueue(id);
            state.resolve(id, Err(JobError::Cancelled), &mut trash);
        }
        self.settle(state, trash);
        cancelled
    }

    /// Drops the outcome of job `id`, now or when it has one.
    pub(crate) fn abandon(&self, id: u64) {
        let mut trash = Trash::new();
        let mut state = lock(&self.state);
        match state.live.get_mut(&id) {
            Some(live) => live.is_wanted = false,
            None => trash.outcomes.extend(state.outcomes.remove(&id)),
        }
        self.settle(state, trash);
    }

    /// Changes the counts that only whoever runs the workers knows.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut lock(&self.state).counters);
    }

    pub(crate) fn metrics(&self) -> Metrics {
        lock(&self.state).metrics()
    }

    /// Ends every change of the state: hands on the places that became free, tells those who wait for the end, and
    /// drops callers' values when the mutex is free.
    fn settle(&self, mut state: MutexGuard<'_, State<J, O>>, trash: Trash<J, O>) {
        state.hand_places_on();
        if state.is_over() {
            while state.idle.grant(()).is_ok() {}
            self.over.notify_all();
            self.timer.notify_all();
        }
        // Tests of this crate are built with `cfg(test)`, and models without debug assertions.
        if cfg!(any(test, debug_assertions)) {
            assert!(state.metrics().is_balanced(), "jobs were lost: {}", state.metrics());
            assert!(state.is_consistent(), "counts and tables differ: {}", state.metrics());
        }
        drop(state);
        trash.discard();
    }

    /// Waits until at least `n` submitters wait for a place.
    #[cfg(all(test, not(any(ferroyolo_loom, ferroyolo_shuttle))))]
    pub(crate) fn await_submitters(&self, n: usize) {
        while lock(&self.state).places.len() < n {
            std::thread::yield_now();
        }
    }

    /// How many outcomes wait for their tickets.
    #[cfg(all(test, not(any(ferroyolo_loom, ferroyolo_shuttle))))]
    pub(crate) fn n_outcomes(&self) -> usize {
        lock(&self.state).outcomes.len()
    }

    /// Wakes whoever waits here for no reason, as the operating system may at any time.
    #[cfg(all(test, any(ferroyolo_loom, ferroyolo_shuttle)))]
    pub(crate) fn disturb(&self) {
        let state = lock(&self.state);
        state.places.disturb();
        state.idle.disturb();
        state.live.values().filter_map(|live| live.waiter.as_ref()).for_each(|wake| wake.notify_all());
        self.over.notify_all();
        self.timer.notify_all();
    }
}

impl<J, O> Claim<'_, J, O> {
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// Which attempt at the job this is, from 1.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When the job has to be done.
    pub(crate) fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    /// Answers the job and checks in; says whether the answer counts.
    ///
    /// It does not if the job has an outcome already, or if it was given to another attempt: then it is dropped.
    pub(crate) fn finish(mut self, outcome: Outcome<O>) -> bool {
        self.check_in(|state, key, trash| state.finish(key, outcome, trash))
    }

    /// Gives the attempt up, puts the job back at the front of the queue and checks in; says whether it did.
    ///
    /// It does not if the job has an outcome already, or if it was given to another attempt. A queue that has stopped
    /// answers the job with `Closed`.
    pub(crate) fn retry(mut self, job: J) -> bool {
        self.check_in(|state, key, trash| state.retry(key, job, trash))
    }

    /// As [`Claim::retry`], of a job that was not begun: nothing is given up, and none is counted.
    pub(crate) fn put_back(mut self, job: J) -> bool {
        self.check_in(|state, key, trash| state.put_back(key, job, trash))
    }

    fn check_in(&mut self, answer: impl FnOnce(&mut State<J, O>, Key, &mut Trash<J, O>) -> bool) -> bool {
        let mut trash = Trash::new();
        let mut state = lock(&self.core.state);
        self.checked_in = true;
        state.n_busy -= 1;
        state.counters.infer.observe(self.since.elapsed());
        let counts = answer(&mut state, self.key, &mut trash);
        self.core.settle(state, trash);
        counts
    }
}

impl<J, O> Drop for Claim<'_, J, O> {
    fn drop(&mut self) {
        if !self.checked_in {
            let died =
                JobError::Crashed { signal: None, code: None, attempt: self.attempt, stderr: String::new() };
            self.check_in(|state, key, trash| state.finish(key, Err(died), trash));
        }
    }
}

struct Started<J> {
    key: Key,
    attempt: u32,
    deadline: Deadline,
    job: J,
}

impl<J, O> State<J, O> {
    fn has_place(&self) -> bool {
        self.queue.len() + self.n_reserved < self.capacity
    }

    /// Grants free places to those who wait for one; all of them when no place will ever be free again.
    fn hand_places_on(&mut self) {
        while self.has_place() || self.phase != Phase::Open {
            if self.places.grant(()).is_err() {
                return;
            }
            self.n_reserved += 1;
        }
    }

    fn accept(&mut self, job: J, deadline: Deadline) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let stage = Stage::Queued(job);
        let queued_at = Instant::now();
        self.live.insert(id, Live { stage, attempt: 0, deadline, queued_at, is_wanted: true, waiter: None });
        self.queue.push_back(id);
        self.counters.accepted += 1;
        self.wake_worker();
        id
    }

    /// Wakes one idle worker. Nobody idle means that a worker who checks in will see the job.
    fn wake_worker(&mut self) {
        let _nobody_idle = self.idle.grant(());
    }

    /// Whether job `id` has to be done before anything that the keeper of time knows of.
    fn wakes_timer(&self, id: u64) -> bool {
        match self.live.get(&id).map(|live| &live.deadline) {
            Some(Deadline::At(at)) => self.timer_at.is_none_or(|known| *at < known),
            _ => false,
        }
    }

    /// Takes the first job off the queue that has time left.
    fn start_next(&mut self, trash: &mut Trash<J, O>) -> Option<Started<J>> {
        while let Some(id) = self.queue.pop_front() {
            let generation = self.next_generation;
            let live = self.live.get_mut(&id).expect("queued jobs are live");
            if live.deadline.has_passed() {
                self.resolve(id, Err(JobError::Timeout), trash);
                continue;
            }
            live.attempt += 1;
            let (attempt, deadline) = (live.attempt, live.deadline.clone());
            self.counters.queue_wait.observe(live.queued_at.elapsed());
            let Stage::Queued(job) = std::mem::replace(&mut live.stage, Stage::Running { generation }) else {
                unreachable!("job {id} is in the queue and runs");
            };
            self.next_generation += 1;
            self.n_running += 1;
            self.n_busy += 1;
            return Some(Started { key: Key { id, generation }, attempt, deadline, job });
        }
        None
    }

    fn is_running(&self, key: Key) -> bool {
        let stage = self.live.get(&key.id).map(|live| &live.stage);
        matches!(stage, Some(Stage::Running { generation }) if *generation == key.generation)
    }

    fn finish(&mut self, key: Key, outcome: Outcome<O>, trash: &mut Trash<J, O>) -> bool {
        if !self.is_running(key) {
            self.drop_late(outcome, trash);
            return false;
        }
        if self.live[&key.id].deadline.has_passed() {
            self.resolve(key.id, Err(JobError::Timeout), trash);
            self.drop_late(outcome, trash);
            return false;
        }
        self.resolve(key.id, outcome, trash);
        true
    }

    /// Counts only what the job itself gave: that a worker was stopped because its time was over is no reply.
    fn drop_late(&mut self, outcome: Outcome<O>, trash: &mut Trash<J, O>) {
        if matches!(outcome, Ok(_) | Err(JobError::App(_) | JobError::Panicked(_))) {
            self.counters.late_replies_dropped += 1;
        }
        trash.outcomes.push(outcome);
    }

    fn retry(&mut self, key: Key, job: J, trash: &mut Trash<J, O>) -> bool {
        let is_back = self.put_back(key, job, trash);
        self.counters.retries += u64::from(is_back);
        is_back
    }

    fn put_back(&mut self, key: Key, job: J, trash: &mut Trash<J, O>) -> bool {
        if !self.is_running(key) {
            trash.jobs.push(job);
            return false;
        }
        if self.phase == Phase::Stopped {
            trash.jobs.push(job);
            self.resolve(key.id, Err(JobError::Closed), trash);
            return false;
        }
        let live = self.live.get_mut(&key.id).expect("running jobs are live");
        live.stage = Stage::Queued(job);
        live.queued_at = Instant::now();
        self.n_running -= 1;
        self.queue.push_front(key.id);
        self.wake_worker();
        true
    }

    /// Gives a live job that is not in the queue its outcome. The only place where jobs end.
    fn resolve(&mut self, id: u64, outcome: Outcome<O>, trash: &mut Trash<J, O>) {
        let live = self.live.remove(&id).expect("only live jobs are resolved");
        match live.stage {
            Stage::Queued(job) => trash.jobs.push(job),
            Stage::Running { .. } => self.n_running -= 1,
        }
        match &outcome {
            Ok(_) => self.counters.completed += 1,
            Err(error) => self.counters.failed.add(error.kind()),
        }
        if live.is_wanted {
            self.outcomes.insert(id, outcome);
        } else {
            trash.outcomes.push(outcome);
        }
        if let Some(wake) = live.waiter {
            wake.notify_all();
        }
    }

    fn unqueue(&mut self, id: u64) {
        self.queue.retain(|queued| *queued != id);
    }

    fn expire(&mut self, trash: &mut Trash<J, O>) {
        let passed = |(id, live): (&u64, &Live<J>)| if live.deadline.has_passed() { Some(*id) } else { None };
        let expired: Vec<u64> = self.live.iter().filter_map(passed).collect();
        for id in expired {
            self.unqueue(id);
            self.resolve(id, Err(JobError::Timeout), trash);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let at = |live: &Live<J>| if let Deadline::At(at) = live.deadline { Some(at) } else { None };
        self.live.values().filter_map(at).min()
    }

    fn close(&mut self) {
        self.phase = self.phase.max(Phase::Closed);
    }

    fn fail_queued(&mut self, error: &impl Fn() -> JobError, trash: &mut Trash<J, O>) -> usize {
        let queued = std::mem::take(&mut self.queue);
        let n = queued.len();
        for id in queued {
            self.resolve(id, Err(error()), trash);
        }
        n
    }

    /// Whether no job is left and none will come.
    fn is_over(&self) -> bool {
        self.phase != Phase::Open && self.queue.is_empty() && self.n_running == 0
    }

    /// What wakes whoever waits for the outcome of job `id`.
    fn waiter(&mut self, id: u64) -> Arc<Condvar> {
        let live = self.live.get_mut(&id).expect("an outcome is taken once");
        Arc::clone(live.waiter.get_or_insert_with(|| Arc::new(Condvar::new())))
    }

    fn metrics(&self) -> Metrics {
        let n_idle = self.idle.len();
        self.counters.snapshot(
            &self.name,
            [self.queue.len(), self.n_running],
            Workers {
                idle: n_idle,
                busy: self.n_busy,
                away: self.n_workers.saturating_sub(n_idle + self.n_busy),
            },
        )
    }

    /// Whether the counts agree with the tables they summarise, and no bound is exceeded.
    fn is_consistent(&self) -> bool {
        let is_running = |live: &&Live<J>| matches!(live.stage, Stage::Running { .. });
        let n_running = self.live.values().filter(is_running).count();
        // Jobs that came back were accepted already, and need no place.
        let n_new =
            self.queue.iter().filter(|id| self.live.get(id).is_some_and(|live| live.attempt == 0)).count();
        n_running == self.n_running
            && self.live.len() == self.n_running + self.queue.len()
            && self.queue.iter().all(|id| self.live.contains_key(id))
            && (self.phase != Phase::Open || n_new + self.n_reserved <= self.capacity)
    }
}

impl<J, O> Trash<J, O> {
    fn new() -> Trash<J, O> {
        Trash { jobs: Vec::new(), outcomes: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.outcomes.is_empty()
    }

    fn discard(self) {
        self.jobs.into_iter().for_each(discard);
        self.outcomes.into_iter().for_each(discard);
    }
}
