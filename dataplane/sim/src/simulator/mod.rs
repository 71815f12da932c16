//! The simulator: a whole cluster of production code in one deterministic executor, and its enemies.
//!
//! *Place*: the top of everything; run by the `ogee-sim` binary, one seed a process. *Owner*: the main
//! task of a world; nodes and clients are hosts of that world.
//!
//! A run has four phases. *Peace*: the cluster is made and clients attach. *War*: the nemesis does what
//! the seed's plan enables, within a budget that leaves every entry and block one good copy more than
//! is needed. *Healing*: no more faults; what is broken for good is replaced, as an operator would.
//! *Judgement*: within bounded virtual time all requests are answered, replicas agree, and the whole
//! history of all clients is that of linearizable registers.
//!
//! *Invariants*: the same seed gives the same run to the last step. *On failure*: [`Verdict`].
//!
//! | module | holds |
//! |---|---|
//! | `plan`, `dice` | what a seed is about |
//! | `cluster` | everything that runs |
//! | `node` | a chunkserver: the production shard on a simulated host and disk |
//! | `mds` | attachments, maps, orders |
//! | `workload`, `scratch`, `prober`, `pioneer`, `echo`, `quitter`, `filler`, `recorder` | clients, and what they saw |
//! | `nemesis`, `wire`, `damage` | faults of machines and links, of frames, of disks |
//! | `coverage`, `repairs` | which faults really happened, and what was put right |
//! | `judgement`, `inspector`, `wholeness` | convergence, equality, history, and that no damage is left |

mod cluster;
mod coverage;
mod damage;
mod dice;
mod echo;
mod filler;
mod inspector;
mod judgement;
mod mds;
mod nemesis;
mod node;
mod pioneer;
mod plan;
mod prober;
mod quitter;
mod recorder;
mod repairs;
mod scratch;
mod wholeness;
mod wire;
mod workload;

use cluster::Cluster;
use coverage::Coverage;
use dice::Dice;
use nemesis::Nemesis;
use ogee_runtime::sim;
use plan::Plan;
use repairs::Repairs;
use std::fmt;
use std::time::Duration;

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All was well.
    Good,
    /// Something happened that must not.
    Violation(String),
    /// Nothing did, but not all the faults happened that should have.
    Incomplete(String),
}

/// A run.
#[derive(Debug, Clone)]
pub struct Report {
    seed: u64,
    /// How it ended.
    pub verdict: Verdict,
    took: Duration,
    operations: usize,
    answered: usize,
    steps: u64,
    trace: u64,
    coverage: Coverage,
    repairs: Repairs,
}

/// What a seed is about, in a line.
#[must_use]
pub fn plan_of(seed: u64, fills: bool) -> String {
    format!("seed {seed} {:?}", Plan::new(&mut dice_of(seed), fills))
}

const fn dice_of(seed: u64) -> Dice {
    Dice::new(seed ^ 0x0e5e_5eed)
}

/// Runs a seed to its end; `fills`: with somebody who fills the stores, whatever the seed says.
#[must_use]
pub fn run(seed: u64, fills: bool) -> Report {
    ogee_runtime::executor::block_on_seeded(seed, async move {
        let mut dice = dice_of(seed);
        let plan = Plan::new(&mut dice, fills);
        tracing::info!(?plan, "SIM plan");
        let cluster = Cluster::new(plan.clone(), dice.fork());
        let mut nemesis = Nemesis::new(cluster.clone(), plan, dice);
        let verdict = act(&cluster, &mut nemesis).await;
        let coverage = nemesis.coverage();
        let verdict = match (verdict, coverage.missing(nemesis.required())) {
            (Err(violation), _) => Verdict::Violation(violation),
            (Ok(()), missing) if missing.is_empty() => Verdict::Good,
            (Ok(()), missing) => Verdict::Incomplete(format!("never happened: {missing:?}")),
        };
        let (trace, steps) = sim::trace();
        Report {
            seed,
            verdict,
            took: sim::world_time(),
            operations: cluster.shop().recorder.len(),
            answered: cluster.shop().recorder.answered(),
            steps,
            trace,
            coverage,
            repairs: repairs(&cluster),
        }
    })
}

/// What all nodes have repaired, and what was damaged.
fn repairs(cluster: &Cluster) -> Repairs {
    let mut repairs = Repairs::default();
    for node in cluster.nodes() {
        repairs.add_all(&node.repairs());
        let (hurt, left) = node.hurt();
        repairs.add("damaged-blocks", hurt as u64);
        repairs.add("damaged-unused", left as u64);
    }
    repairs
}

async fn act(cluster: &Cluster, nemesis: &mut Nemesis) -> Result<(), String> {
    cluster.make().await?;
    nemesis.rage().await?;
    nemesis.heal();
    judgement::judge(cluster).await?;
    wholeness::check(cluster).await
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match &self.verdict {
            Verdict::Good => "good",
            Verdict::Violation(_) => "VIOLATION",
            Verdict::Incomplete(_) => "INCOMPLETE",
        };
        write!(
            f,
            "seed {} {word}: {:.3} s, {} of {} operations answered, {} steps, trace {:016x}, {}{}",
            self.seed,
            self.took.as_secs_f64(),
            self.answered,
            self.operations,
            self.steps,
            self.trace,
            self.coverage,
            self.repairs
        )?;
        match &self.verdict {
            Verdict::Good => Ok(()),
            Verdict::Violation(what) | Verdict::Incomplete(what) => write!(f, "\n{what}"),
        }
    }
}
