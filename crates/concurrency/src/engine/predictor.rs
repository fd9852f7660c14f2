//! One interface for the policies within a process.

use std::error::Error;
use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use ferroyolo::{Image, Model, PredictOptions, Results, Session};

use super::Sessions;
use crate::{LockError, Locked, PerThread, PerThreadError, Pool, PoolError};

/// How callers in one process share a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// Every call takes idle working memory of the model, or makes new: [`Model::predict_batch`].
    #[default]
    Shared,
    /// One session behind a fair lock. Calls run one after the other, whatever the number of threads; the network
    /// itself may use several.
    Locked,
    /// A session for each calling thread.
    PerThread,
    /// A fixed number of sessions, lent to callers in the order of their arrival.
    Pool,
}

impl Policy {
    /// All policies.
    pub const ALL: [Policy; 4] = [Policy::Shared, Policy::Locked, Policy::PerThread, Policy::Pool];

    /// The name on the command line: `shared`, `locked`, `per-thread` or `pool`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Shared => "shared",
            Policy::Locked => "locked",
            Policy::PerThread => "per-thread",
            Policy::Pool => "pool",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(name: &str) -> Result<Policy, String> {
        let known = Policy::ALL.into_iter().find(|policy| policy.as_str() == name);
        known.ok_or_else(|| format!("got {name:?}, expected shared, locked, per-thread or pool"))
    }
}

/// A model that any number of threads may call, under a [`Policy`].
///
/// ```no_run
/// use std::num::NonZeroUsize;
/// use ferroyolo::{Image, Model, ModelOptions, PredictOptions};
/// use ferroyolo_concurrency::engine::{Policy, Predictor};
///
/// let model = Model::open("yolo11n.safetensors", &ModelOptions { threads: Some(1), ..Default::default() })?;
/// let predictor = Predictor::new(&model, Policy::Pool, NonZeroUsize::new(4).unwrap());
/// std::thread::scope(|scope| {
///     for path in ["a.jpg", "b.jpg", "c.jpg"] {
///         let predictor = &predictor;
///         scope.spawn(move || {
///             let image = Image::open(path).unwrap();
///             let results = predictor.predict(&[&image], &PredictOptions::default()).unwrap();
///             println!("{path}: {}", results[0].verbose());
///         });
///     }
/// });
/// # Ok::<(), ferroyolo::Error>(())
/// ```
#[derive(Debug)]
pub struct Predictor {
    policy: Policy,
    sessions: Arrangement,
}

#[derive(Debug)]
enum Arrangement {
    Shared(Model),
    Locked { session: Locked<Session>, model: Model },
    PerThread(PerThread<Sessions>),
    Pool(Pool<Sessions>),
}

impl Predictor {
    /// Sessions of `model` under `policy`; `n_sessions` is the size of a [`Policy::Pool`].
    #[must_use]
    pub fn new(model: &Model, policy: Policy, n_sessions: NonZeroUsize) -> Predictor {
        let sessions = match policy {
            Policy::Shared => Arrangement::Shared(model.clone()),
            Policy::Locked => {
                Arrangement::Locked { session: Locked::new(model.session()), model: model.clone() }
            }
            Policy::PerThread => Arrangement::PerThread(PerThread::new(Sessions::of(model))),
            Policy::Pool => Arrangement::Pool(Pool::new(Sessions::of(model), n_sessions)),
        };
        Predictor { policy, sessions }
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Finds the objects in `images`, which go through the network at once; results in the same order.
    ///
    /// Waits for its turn under [`Policy::Locked`] and [`Policy::Pool`]. A session whose call panicked is never used
    /// again: the panic goes on in the caller, and later calls get a fresh session.
    pub fn predict(&self, images: &[&Image], options: &PredictOptions) -> Result<Vec<Results>, PredictError> {
        let run = |session: &mut Session| session.predict(images, options);
        let results = match &self.sessions {
            Arrangement::Shared(model) => model.predict_batch(images, options),
            Arrangement::Locked { session, model } => loop {
                match session.with(run) {
                    Err(LockError::Poisoned) => {
                        session
                            .recover(|session| *session = model.session())
                            .map_err(PredictError::Locked)?;
                    }
                    Err(error) => return Err(PredictError::Locked(error)),
                    Ok(results) => break results,
                }
            },
            Arrangement::PerThread(sessions) => match sessions.with(run) {
                Ok(results) => results,
                Err(PerThreadError::Reentrant) => return Err(PredictError::Locked(LockError::Reentrant)),
                Err(PerThreadError::Make(never)) => match never {},
            },
            Arrangement::Pool(sessions) => match sessions.get() {
                Ok(mut session) => run(&mut session),
                Err(PoolError::Reentrant) => return Err(PredictError::Locked(LockError::Reentrant)),
                Err(PoolError::Timeout) => return Err(PredictError::Locked(LockError::Timeout)),
                Err(PoolError::Make(never)) => match never {},
            },
        };
        results.map_err(PredictError::Engine)
    }
}

/// Why a [`Predictor`] gave no results.
#[derive(Debug)]
#[non_exhaustive]
pub enum PredictError {
    /// The engine refused the pictures or the options.
    Engine(ferroyolo::Error),
    /// No session was to be had, for example because the caller holds the only one itself.
    Locked(LockError),
}

impl fmt::Display for PredictError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PredictError::Engine(error) => fmt::Display::fmt(error, f),
            PredictError::Locked(error) => write!(f, "no session: {error}"),
        }
    }
}

impl Error for PredictError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // Its own text is this error's text already.
            PredictError::Engine(error) => error.source(),
            PredictError::Locked(error) => Some(error),
        }
    }
}
