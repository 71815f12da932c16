//! What a scenario does to a dev cluster during a run: a thread of its own, since starting a process
//! waits for it.

use crate::args::LoadArgs;
use crate::dev;
use crate::error::{CliError, Exit};
use crate::settings::wrong;
use ogee_perf::{Event, EventKind};
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The events of a run.
pub(super) struct Events {
    waiting: Option<(PathBuf, Vec<Event>)>,
    running: Option<Running>,
}

struct Running {
    /// Dropped when the run is over: what has not happened by then does not happen.
    over: Option<Sender<()>>,
    thread: JoinHandle<Result<(), CliError>>,
}

impl Events {
    /// Checks that every process is there.
    pub(super) fn new(args: &LoadArgs, mut events: Vec<Event>) -> Result<Self, CliError> {
        if events.is_empty() {
            return Ok(Self {
                waiting: None,
                running: None,
            });
        }
        let doing = "the scenario kills and starts processes";
        let Some(dir) = &args.dev_dir else {
            let remedy = "give --dev-dir DIR of ogee dev up";
            return Err(wrong(doing, "it is not told of which cluster", remedy));
        };
        let known: Vec<String> = dev::processes(dir)
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        for event in &events {
            let (EventKind::Kill(name) | EventKind::Start(name)) = &event.what;
            if !known.contains(name) {
                let cause = format!("no process {name} runs in {}", dir.display());
                let remedy = format!(
                    "use one of: {}; ogee dev start starts one",
                    known.join(", ")
                );
                return Err(wrong(doing, &cause, &remedy).with_exit(Exit::NotFound));
            }
        }
        events.sort_by_key(|event| event.at);
        Ok(Self {
            waiting: Some((dir.clone(), events)),
            running: None,
        })
    }

    /// Time counts from now on.
    pub(super) fn begin(&mut self) {
        let Some((dir, events)) = self.waiting.take() else {
            return;
        };
        let (over, is_over) = mpsc::channel::<()>();
        let began = Instant::now();
        let thread = thread::spawn(move || {
            for event in events {
                let due = began + Duration::from_secs(event.at);
                let wait = due.saturating_duration_since(Instant::now());
                if is_over.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
                match &event.what {
                    EventKind::Kill(name) => dev::kill(&dir, name)?,
                    EventKind::Start(name) => dev::start(&dir, name)?,
                }
                let done = began.elapsed().as_secs_f64();
                tracing::info!(at_s = done, event = ?event.what, "done");
            }
            Ok(())
        });
        self.running = Some(Running {
            over: Some(over),
            thread,
        });
    }

    /// The run is over.
    pub(super) fn end(&mut self) {
        if let Some(running) = &mut self.running {
            running.over = None;
        }
    }

    /// What went wrong.
    pub(super) fn finish(mut self) -> Result<(), CliError> {
        self.end();
        match self.running.map(|running| running.thread.join()) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}
