//! Asking the metadata servers from a command.

use crate::error::CliError;
use ogee_client::{ControlError, MdsClient, MdsConfig};
use std::future::Future;

/// Runs `question` with a client of the configured metadata servers.
pub(crate) fn ask<T, A>(
    mds: &[String],
    doing: &str,
    question: impl FnOnce(MdsClient) -> A,
) -> Result<T, CliError>
where
    A: Future<Output = Result<T, ControlError>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime
        .map_err(|error| CliError::io("cannot start the runtime", &error, "free some memory"))?;
    let outcome = runtime.block_on(async {
        let client = MdsClient::new(config(mds))?;
        question(client).await
    });
    outcome.map_err(|error| match error {
        ControlError::NoEndpoints => CliError::new(
            "OGEE-3004",
            doing,
            "no metadata server is named",
            "give --mds HOST:PORT, set OGEE_MDS, or source DIR/ogee.env of a dev cluster",
        ),
        error => CliError::control(doing, &error),
    })
}

/// The client's configuration for these addresses.
pub(crate) fn config(mds: &[String]) -> MdsConfig {
    MdsConfig::new(mds.to_vec())
}
