//! One command in, one reply out.

use super::command::{Command, InitCluster, Outcome, Reply};
use super::model::{Cluster, State};

impl State {
    /// Carries a command out, or refuses it and changes nothing, but for what is remembered of [`Command::Once`].
    ///
    /// # Errors
    /// The refusal, which every metadata server computes alike.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        match command {
            Command::InitCluster(command) => Ok(self.init_cluster(command)),
            Command::RegisterChunkserver(command) => self.register_chunkserver(command),
            Command::CreatePool(command) => self.create_pool(command),
            Command::CreateCopysets(command) => self.create_copysets(command),
            Command::ConfirmReplicas(command) => Ok(self.confirm_replicas(command)),
            Command::CreateVolume(command) => self.create_volume(command),
            Command::ResizeVolume(command) => self.resize_volume(command),
            Command::RemoveVolume(command) => self.remove_volume(command),
            Command::Attach(command) => self.attach(command),
            Command::Detach(command) => self.detach(command),
            Command::ConfirmRemoval(command) => Ok(self.confirm_removal(command)),
            Command::ReplaceReplica(command) => self.replace_replica(command),
            Command::ConfirmChanges(command) => Ok(self.confirm_changes(command)),
            Command::MarkStores(command) => self.mark_stores(command),
            Command::NoteStores(command) => Ok(self.note_stores(command)),
            Command::NoteSick(command) => self.note_sick(command),
            Command::ReinstateStores { stores } => self.reinstate_stores(stores),
            Command::ReplaceStore { old, new } => self.replace_store(*old, *new),
            Command::AddJobs(command) => self.add_jobs(command),
            Command::StartJob(command) => self.start_job(command),
            Command::StartJobs(command) => self.start_jobs(command),
            Command::EndJob(command) => self.end_job(command),
            Command::RemoveChunkserver { chunkserver } => self.remove_chunkserver(*chunkserver),
            Command::NoteEvents { events } => self.note_events(events),
            Command::AdoptMembers(command) => self.adopt_members(command),
            Command::AcceptRestore => self.accept_restore(),
            Command::DiscardVolume(command) => self.discard_volume(command),
            Command::SetPool(command) => self.set_pool(command),
            Command::ResetCopyset(command) => self.reset_copyset(command),
            Command::BeginMaintenance(command) => self.begin_maintenance(command),
            Command::EndMaintenance(command) => Ok(self.end_maintenance(command)),
            Command::Once(command) => self.once(command),
            Command::RenameVolume(command) => self.rename_volume(command),
            Command::SetVolume(command) => self.set_volume(command),
            Command::CreateDirectory(command) => self.create_directory(command),
            Command::RemoveDirectory(command) => self.remove_directory(command),
            Command::RenameDirectory(command) => self.rename_directory(command),
            Command::SetQuota(command) => self.set_quota(command),
            Command::RaiseVersion(command) => self.raise_version(*command),
            Command::PauseJobs(command) => Ok(self.pause_jobs(*command)),
            Command::ResumeJobs(command) => Ok(self.resume_jobs(*command)),
            Command::RemovePool(command) => self.remove_pool(command),
        }
    }

    fn init_cluster(&mut self, command: &InitCluster) -> Reply {
        let cluster = self.cluster.get_or_insert_with(|| Cluster {
            id: command.id,
            name: command.name.clone(),
        });
        Reply::Cluster(cluster.id)
    }
}
