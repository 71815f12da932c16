//! A copyset that has lost its majority for good goes on with one replica: for operators.

use ogee_proto::fault::Fault;
use ogee_proto::id::CopysetId;
use ogee_proto::service::{ResetCopysetRequest, ResetCopysetResponse};
use tonic::Code;

use super::context::unix_ms;
use super::error::ApiError;
use super::info::{Scene, count};
use super::jobs::picture;
use super::topology::TopologyApi;
use super::watch::note;
use crate::limit::RESET_NAMES_MAX;
use crate::liveness::{ReplicaState, ReplicaStatus};
use crate::state::{Command, Copyset, EventLevel, Refusal, Replica, Reply, ResetCopyset};

impl TopologyApi {
    /// Judges and, unless it is only asked, does it.
    pub(super) async fn reset(
        &self,
        request: ResetCopysetRequest,
    ) -> Result<ResetCopysetResponse, ApiError> {
        let (command, mut answer) = self.look(|scene, _| judge(scene, &request)).await??;
        if request.dry_run {
            return Ok(answer);
        }
        let copyset = command.copyset;
        let reply = self.0.write(Command::ResetCopyset(command)).await?;
        let Reply::Replica(to) = reply else {
            unreachable!("invariant: a reset answers with the survivor's new id");
        };
        answer.replica = to.get();
        let text = format!(
            "{copyset} goes on with the replica on \"{}\" alone; given up: {}. Volumes that may have lost writes: {}",
            answer.chunkserver,
            answer.given_up.join(", "),
            names_of(&answer)
        );
        let subject = copyset.get().to_string();
        note(&self.0, EventLevel::Err, "copyset_reset", &subject, text).await;
        Ok(answer)
    }
}

fn names_of(answer: &ResetCopysetResponse) -> String {
    let more = answer
        .volume_count
        .saturating_sub(count(answer.volumes.len()));
    match more {
        0 if answer.volumes.is_empty() => "none".to_owned(),
        0 => answer.volumes.join(", "),
        more => format!("{} and {more} more", answer.volumes.join(", ")),
    }
}

/// A survivor and how far its log goes.
struct Survivor<'a> {
    replica: &'a Replica,
    status: &'a ReplicaStatus,
}

impl Survivor<'_> {
    /// As replicas compare each other's logs in an election.
    const fn reach(&self) -> (u64, u64) {
        (self.status.last_term, self.status.last_log)
    }
}

/// What is to be written, and what the operator is told first.
fn judge(
    scene: &Scene<'_>,
    request: &ResetCopysetRequest,
) -> Result<(ResetCopyset, ResetCopysetResponse), ApiError> {
    let id = CopysetId::new(request.copyset);
    let copyset = scene.state.copysets().get(&id);
    let copyset = copyset.ok_or(Refusal::NoCopyset { copyset: id })?;
    let survivors = survivors(scene, copyset);
    let survivor = chosen(scene, id, &survivors, &request.from)?;
    let command = ResetCopyset {
        copyset: id,
        survivor: survivor.replica.id,
        conf_epoch: copyset.conf_epoch,
        at_ms: unix_ms(),
    };
    scene.state.check_reset(&command)?;
    // What was declared lost may have come back.
    let is_led = survivors.iter().any(|it| it.status.is_led);
    if is_led || picture(scene).has_quorum(copyset) {
        return Err(refused(
            id,
            "a majority of its replicas answers: its group does as it is",
            "ogee copyset show COPYSET; if it has no leader, the chunkservers' logs say why",
        ));
    }
    let others = copyset.members().filter(|r| r.id != survivor.replica.id);
    let volumes = scene.state.volumes().values();
    let volumes = volumes.filter(|volume| volume.copysets().contains(&id));
    let names: Vec<String> = volumes.map(|volume| volume.name.to_string()).collect();
    let answer = ResetCopysetResponse {
        replica: 0,
        from_replica: survivor.replica.id.get(),
        chunkserver: server_of(scene, survivor.replica),
        store: survivor.replica.store.to_string(),
        last_log: survivor.status.last_log,
        given_up: others.map(|r| server_of(scene, r)).collect(),
        volume_count: count(names.len()),
        volumes: names.into_iter().take(RESET_NAMES_MAX).collect(),
        chunks: copyset.chunks,
    };
    Ok((command, answer))
}

/// Voters that answer and have all that they say they have.
fn survivors<'a>(scene: &Scene<'a>, copyset: &'a Copyset) -> Vec<Survivor<'a>> {
    let voters = copyset.replicas.iter();
    let survivors = voters.filter_map(|replica| {
        let status = (scene.liveness).replica(scene.now, replica.chunkserver, replica.id)?;
        let is_whole = matches!(status.state, ReplicaState::Ok | ReplicaState::Outrun);
        is_whole.then_some(Survivor { replica, status })
    });
    survivors.collect()
}

/// The one that is meant, or the one that is furthest; never one that is behind another.
fn chosen<'a, 'b>(
    scene: &Scene<'_>,
    id: CopysetId,
    survivors: &'b [Survivor<'a>],
    from: &str,
) -> Result<&'b Survivor<'a>, ApiError> {
    let furthest = survivors.iter().max_by_key(|it| it.reach());
    let furthest = furthest.ok_or_else(|| {
        refused(
            id,
            "no replica of it answers and is whole",
            "start a chunkserver that has one; one that is copied to, or damaged, cannot go on alone",
        )
    })?;
    if from.is_empty() {
        return Ok(furthest);
    }
    let is_meant = |it: &&Survivor<'_>| {
        it.replica.store.to_string() == from || server_of(scene, it.replica) == from
    };
    let meant = survivors.iter().find(is_meant).ok_or_else(|| {
        let cause = format!("\"{from}\" has no replica of it that answers and is whole");
        refused(id, &cause, "ogee copyset show COPYSET, or without --from")
    })?;
    if meant.reach() < furthest.reach() {
        let (term, index) = meant.reach();
        let (far_term, far_index) = furthest.reach();
        let cause = format!(
            "the replica on \"{from}\" ends with entry {index} of term {term}, and the one on \"{}\" with entry \
             {far_index} of term {far_term}",
            server_of(scene, furthest.replica)
        );
        let remedy = format!("--from {}", server_of(scene, furthest.replica));
        return Err(refused(id, &cause, &remedy));
    }
    Ok(meant)
}

fn server_of(scene: &Scene<'_>, replica: &Replica) -> String {
    let server = scene.state.chunkservers().get(&replica.chunkserver);
    server.map_or_else(|| replica.chunkserver.to_string(), |it| it.name.to_string())
}

fn refused(id: CopysetId, cause: &str, remedy: &str) -> ApiError {
    let what = format!("{id} is not reset");
    let remedy = remedy.replace("COPYSET", &id.get().to_string());
    let fault = Fault::new("OGEE-2083", &what, cause, &remedy);
    ApiError::new(Code::FailedPrecondition, fault)
}
