//! Errors as the user sees them: code, what, cause, remedy; and the exit code.

use ogee_client::ControlError;
use ogee_proto::fault::Fault;
pub(crate) use ogee_proto::fault::chain;
use std::fmt;

/// How the process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// It failed.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The cluster is not healthy.
    Degraded = 3,
    /// The thing named does not exist.
    NotFound = 4,
}

/// A failure in the user's words.
#[derive(Debug)]
pub(crate) struct CliError {
    fault: Fault,
    exit: Exit,
}

impl CliError {
    pub(crate) fn new(code: &'static str, what: &str, cause: &str, remedy: &str) -> Self {
        Self {
            fault: Fault::new(code, what, cause, remedy),
            exit: Exit::Failed,
        }
    }

    /// A fault that was found elsewhere.
    pub(crate) const fn fault(fault: Fault) -> Self {
        Self {
            fault,
            exit: Exit::Failed,
        }
    }

    /// The same with another exit code.
    pub(crate) const fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }

    /// The control plane's answer to `doing`.
    pub(crate) fn control(doing: &str, error: &ControlError) -> Self {
        if let ControlError::Refused(refusal) = error
            && let Some(fault) = refusal.fault()
        {
            let missing = refusal.grpc_code() == tonic::Code::NotFound;
            let exit = if missing {
                Exit::NotFound
            } else {
                Exit::Failed
            };
            return Self {
                fault: fault.clone(),
                exit,
            };
        }
        let remedy = match error {
            ControlError::OutcomeUnknown { .. } => {
                "ogee status; when a metadata server leads again, look whether it was done before asking again"
            }
            _ => "check that the cluster runs (ogee status) and that --mds or OGEE_MDS names it",
        };
        Self::new("OGEE-3001", doing, &chain(error), remedy)
    }

    /// A file or process operation that failed.
    pub(crate) fn io(doing: &str, error: &std::io::Error, remedy: &str) -> Self {
        Self::new("OGEE-3002", doing, &error.to_string(), remedy)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.fault.code(), self.fault.what())?;
        if !self.fault.cause().is_empty() {
            write!(f, "\n  because: {}", self.fault.cause())?;
        }
        if !self.fault.remedy().is_empty() {
            write!(f, "\n  try:     {}", self.fault.remedy())?;
        }
        Ok(())
    }
}
