//! The way to the metadata servers: dead ones are passed over, redirects followed, refusals kept,
//! and what is done once is asked for again only under its id.

#![allow(clippy::unwrap_used, reason = "all of this file is test code")]

use ogee_client::{AttachSpec, Control, ControlError, MdsConfig, MdsHandle};
use ogee_proto::fault::Fault;
use ogee_proto::id::{ClientId, Epoch};
use ogee_proto::service as message;
use ogee_proto::service::volumes_server::{Volumes, VolumesServer};
use ogee_runtime::executor::block_on;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// What a server does with every request.
#[derive(Clone)]
enum Mood {
    Leads,
    Redirects(String),
    Refuses,
    /// Executes, and answers too late.
    Hangs,
}

/// Ids of the attaches that a server has got.
type Ids = Arc<Mutex<Vec<Vec<u8>>>>;

fn count(ids: &Ids) -> usize {
    ids.lock().unwrap().len()
}

struct Server {
    mood: Mood,
    attaches: Ids,
}

impl Server {
    async fn decide<T>(&self, answer: T) -> Result<Response<T>, Status> {
        match &self.mood {
            Mood::Leads => Ok(Response::new(answer)),
            Mood::Redirects(leader) => {
                let mut status = Status::unavailable("not the leader");
                status
                    .metadata_mut()
                    .insert("ogee-mds-leader", leader.parse().unwrap());
                Err(status)
            }
            Mood::Refuses => {
                let fault = Fault::new("OGEE-2003", "volume v is in use", "host b", "detach it");
                Err(Status::failed_precondition(fault.to_string()))
            }
            Mood::Hangs => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                Ok(Response::new(answer))
            }
        }
    }
}

fn map() -> message::VolumeMap {
    let replica = message::ReplicaInfo {
        id: 11,
        endpoint: "127.0.0.1:7100".into(),
        ..Default::default()
    };
    message::VolumeMap {
        volume: Some(message::VolumeInfo {
            id: 9,
            size: 1 << 30,
            ..Default::default()
        }),
        segments: vec![message::MapSegment {
            first_chunk: 0,
            copysets: vec![1],
        }],
        copysets: vec![message::CopysetInfo {
            id: 1,
            replicas: vec![replica],
            ..Default::default()
        }],
        mds: vec![],
    }
}

macro_rules! unused {
    ($($name:ident($request:ty) -> $answer:ty;)*) => {
        #[tonic::async_trait]
        impl Volumes for Server {
            async fn attach(
                &self,
                request: Request<message::AttachRequest>,
            ) -> Result<Response<message::Attachment>, Status> {
                self.attaches.lock().unwrap().push(request.into_inner().request_id);
                self.decide(message::Attachment { map: Some(map()), client: 5, epoch: 3 }).await
            }

            async fn refresh(
                &self,
                _: Request<message::RefreshRequest>,
            ) -> Result<Response<message::VolumeMap>, Status> {
                self.decide(map()).await
            }

            $(
                async fn $name(&self, _: Request<$request>) -> Result<Response<$answer>, Status> {
                    Err(Status::unimplemented("not part of these tests"))
                }
            )*
        }
    };
}

unused! {
    create(message::CreateVolumeRequest) -> message::VolumeInfo;
    list(message::ListVolumesRequest) -> message::ListVolumesResponse;
    show(message::VolumeName) -> message::VolumeInfo;
    resize(message::ResizeVolumeRequest) -> message::VolumeInfo;
    remove(message::RemoveVolumeRequest) -> message::Empty;
    locate(message::VolumeName) -> message::VolumeMap;
    detach(message::DetachRequest) -> message::Empty;
}

/// Servers on a thread of their own, which ends with the process.
struct Servers {
    handle: tokio::runtime::Handle,
}

impl Servers {
    fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new().name("servers".into());
        thread
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .unwrap();
        Self { handle }
    }

    /// Starts a server; its address and the attaches that it gets.
    fn start(&self, mood: Mood) -> (String, Ids) {
        let attaches = Ids::default();
        let server = Server {
            mood,
            attaches: Arc::clone(&attaches),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        listener.set_nonblocking(true).unwrap();
        self.handle.spawn(async move {
            let incoming = TcpIncoming::from(TcpListener::from_std(listener).unwrap());
            let server =
                tonic::transport::Server::builder().add_service(VolumesServer::new(server));
            server.serve_with_incoming(incoming).await.unwrap();
        });
        (address, attaches)
    }

    /// An address where nobody listens.
    fn dead(&self) -> String {
        std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string()
    }
}

fn handle(endpoints: &[&String]) -> MdsHandle {
    let endpoints = endpoints
        .iter()
        .map(|endpoint| (*endpoint).clone())
        .collect();
    let mut config = MdsConfig::new(endpoints);
    config.call_timeout = Duration::from_millis(500);
    config.patience = Duration::from_secs(2);
    MdsHandle::start(config).unwrap()
}

fn spec() -> AttachSpec {
    AttachSpec {
        name: "v".into(),
        host: "a".into(),
        read_only: false,
    }
}

#[test]
fn a_dead_server_is_passed_over_and_a_redirect_followed_to_an_unknown_leader() {
    let servers = Servers::new();
    let (leader, attaches) = servers.start(Mood::Leads);
    let (follower, asked) = servers.start(Mood::Redirects(leader));
    let mds = handle(&[&servers.dead(), &follower]);
    block_on(async {
        let grant = mds.attach(spec()).await.unwrap();
        assert_eq!(
            (grant.client, grant.epoch),
            (ClientId::new(5), Epoch::new(3))
        );
        assert_eq!(grant.map.head().size.get(), 1 << 30);
        mds.refresh("v", grant.client, grant.epoch).await.unwrap();
    });
    assert_eq!((count(&asked), count(&attaches)), (1, 1));
}

#[test]
fn a_refusal_keeps_code_cause_and_remedy() {
    let servers = Servers::new();
    let (server, attaches) = servers.start(Mood::Refuses);
    let error = block_on(handle(&[&server]).attach(spec())).unwrap_err();
    let ControlError::Refused(refusal) = &error else {
        panic!("{error}")
    };
    let fault = refusal.fault().unwrap();
    assert_eq!(
        (fault.code(), fault.cause(), fault.remedy()),
        ("OGEE-2003", "host b", "detach it")
    );
    assert_eq!(count(&attaches), 1);
}

#[test]
fn a_change_without_an_answer_is_asked_for_again_under_its_id() {
    let servers = Servers::new();
    let (hangs, first) = servers.start(Mood::Hangs);
    let (leader, second) = servers.start(Mood::Leads);
    let mds = handle(&[&hangs, &leader]);
    block_on(async {
        mds.attach(spec()).await.unwrap();
        mds.attach(spec()).await.unwrap();
    });
    let (first, second) = (first.lock().unwrap(), second.lock().unwrap());
    assert_eq!(first.len(), 1, "the one that answers is asked from then on");
    assert_eq!(first[0].len(), 16);
    assert_eq!(second[0], first[0], "another try of the same request");
    assert_ne!(second[1], first[0], "another request");
}

#[test]
fn what_nobody_answers_may_have_been_done() {
    let servers = Servers::new();
    let (hangs, asked) = servers.start(Mood::Hangs);
    let mds = handle(&[&hangs]);
    let error = block_on(mds.attach(spec())).unwrap_err();
    assert!(
        matches!(&error, ControlError::OutcomeUnknown { endpoint, .. } if *endpoint == hangs),
        "{error}"
    );
    let asked = asked.lock().unwrap();
    assert!(
        asked.iter().all(|id| *id == asked[0]) && asked.len() > 1,
        "{asked:?}"
    );
    // A question is only not answered.
    let (client, epoch) = (ClientId::new(5), Epoch::new(3));
    let (leads, _) = servers.start(Mood::Leads);
    let asks_on = handle(&[&hangs, &servers.dead(), &leads]);
    block_on(asks_on.refresh("v", client, epoch)).unwrap();
}

#[test]
fn nobody_there_is_said_with_who_was_asked() {
    let servers = Servers::new();
    let (one, two) = (servers.dead(), servers.dead());
    let error = block_on(handle(&[&one, &two]).attach(spec())).unwrap_err();
    assert!(
        matches!(error, ControlError::Unreachable { .. }),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains(&one) && text.contains(&two), "{text}");
}
