//! The deterministic engine.
#![cfg(ogee_sim)]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ogee_runtime::executor::block_on_seeded;
use ogee_runtime::file::{DmaFile, OpenOptions};
use ogee_runtime::net::{TcpListener, TcpStream};
use ogee_runtime::sim::{self, Death, HostId, Link};
use ogee_runtime::{Buffer, now, random_u64, sleep, spawn, yield_now};

#[test]
fn timers_fire_in_virtual_order_and_take_no_real_time() {
    block_on_seeded(1, async {
        let start = now();
        let order = Rc::new(RefCell::new(Vec::new()));
        let tasks = [3, 1, 2].map(|hours| {
            let order = Rc::clone(&order);
            spawn(async move {
                sleep(Duration::from_secs(hours * 3600)).await;
                order.borrow_mut().push((hours, now() - start));
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
        let expected = [1, 2, 3].map(|hours| (hours, Duration::from_secs(hours * 3600)));
        assert_eq!(*order.borrow(), expected);
    });
}

/// The order in which twenty tasks take their steps, with files and random numbers among them.
fn run(seed: u64) -> Vec<(u64, u64)> {
    block_on_seeded(seed, async {
        let options = OpenOptions {
            create: true,
            ..OpenOptions::default()
        };
        let file = DmaFile::open("shared", options).await.expect("a file");
        let trace = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..20_u64)
            .map(|number| {
                let (trace, file) = (Rc::clone(&trace), file.clone());
                spawn(async move {
                    for _ in 0..5 {
                        file.write_at(number * 512, Buffer::zeroed(512))
                            .await
                            .expect("a write");
                        yield_now().await;
                        trace.borrow_mut().push((number, random_u64()));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("never cancelled");
        }
        trace.take()
    })
}

#[test]
fn a_seed_replays_and_another_differs() {
    assert_eq!(run(42), run(42));
    assert_ne!(run(42), run(43));
}

#[test]
fn worlds_share_no_files() {
    let options = OpenOptions {
        create: true,
        ..OpenOptions::default()
    };
    block_on_seeded(1, async {
        DmaFile::open("mine", options).await.unwrap();
    });
    block_on_seeded(1, async {
        assert!(DmaFile::open("mine", OpenOptions::default()).await.is_err());
    });
}

#[test]
#[should_panic(expected = "woken by nobody")]
fn panics_come_out() {
    block_on_seeded(1, async {
        drop(spawn(async { panic!("woken by nobody") }));
        sleep(Duration::from_secs(1)).await;
    });
}

const ONE: HostId = HostId::new(1);
const TWO: HostId = HostId::new(2);

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 7000))
}

/// What a host reads from its first connection, byte by byte, until it ends: how it ended is last.
fn listen(host: HostId, heard: Rc<RefCell<Vec<String>>>) {
    let listener = sim::spawn_on(host, async move {
        let listener = TcpListener::bind(address(1)).expect("free");
        let (stream, _) = listener.accept().await.expect("a connection");
        let (mut reader, _writer) = stream.into_split();
        let mut buffer = [0; 64];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) => return heard.borrow_mut().push("end".into()),
                Ok(count) => {
                    let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                    heard.borrow_mut().push(text);
                }
                Err(error) => return heard.borrow_mut().push(error.kind().to_string()),
            }
        }
    });
    drop(listener);
}

/// Sends a byte a hundred milliseconds, for ever.
async fn chatter() {
    let (_reader, mut writer) = TcpStream::connect(address(1))
        .await
        .expect("a connection")
        .into_split();
    loop {
        if writer.write_all(b"x").await.is_err() {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What host 1 hears of host 2, which is killed after half a second.
fn hear_of_a_death(death: Death) -> Vec<String> {
    block_on_seeded(7, async move {
        let heard = Rc::new(RefCell::new(Vec::new()));
        listen(ONE, heard.clone());
        sleep(Duration::from_millis(1)).await;
        drop(sim::spawn_on(TWO, chatter()));
        sleep(Duration::from_millis(550)).await;
        sim::kill(TWO, death);
        sleep(Duration::from_secs(5)).await;
        heard.take()
    })
}

#[test]
fn a_killed_process_closes_its_sockets_and_a_host_without_power_falls_silent() {
    let process = hear_of_a_death(Death::Process);
    assert_eq!(process.len(), 7, "{process:?}");
    assert_eq!(process.last().map(String::as_str), Some("end"));
    let power = hear_of_a_death(Death::Power);
    assert_eq!(power, ["x"; 6]);
}

#[test]
fn all_tasks_of_a_killed_host_are_gone_at_once_and_no_others() {
    block_on_seeded(3, async {
        let alive = Rc::new(());
        let hold = |alive: Rc<()>| async move {
            let inner = Rc::clone(&alive);
            drop(spawn(async move {
                sleep(Duration::from_secs(3600)).await;
                drop(inner);
            }));
            sleep(Duration::from_secs(3600)).await;
            drop(alive);
        };
        let doomed = sim::spawn_on(ONE, hold(Rc::clone(&alive)));
        let other = sim::spawn_on(TWO, hold(Rc::clone(&alive)));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(Rc::strong_count(&alive), 5);
        sim::kill(ONE, Death::Process);
        assert_eq!(Rc::strong_count(&alive), 3);
        assert!(doomed.await.is_err() && !other.is_finished());
    });
}

#[test]
fn what_a_cut_holds_up_arrives_when_it_heals_and_the_other_way_is_open() {
    block_on_seeded(9, async {
        let heard = Rc::new(RefCell::new(Vec::new()));
        listen(ONE, heard.clone());
        sleep(Duration::from_millis(1)).await;
        drop(sim::spawn_on(TWO, chatter()));
        sleep(Duration::from_millis(50)).await;
        let cut = Link {
            is_cut: true,
            ..Link::default()
        };
        sim::set_link(TWO, ONE, cut);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(heard.borrow().concat(), "x");
        assert!(sim::link_counts().held > 0);
        sim::set_link(TWO, ONE, Link::default());
        sleep(Duration::from_millis(20)).await;
        assert_eq!(heard.borrow().concat(), "x".repeat(11));
    });
}

#[test]
fn an_end_that_is_broken_learns_it_before_the_other_which_still_gets_what_was_sent() {
    block_on_seeded(11, async {
        let heard = Rc::new(RefCell::new(Vec::new()));
        listen(ONE, heard.clone());
        sleep(Duration::from_millis(1)).await;
        let talker = sim::spawn_on(TWO, chatter());
        sleep(Duration::from_millis(150)).await;
        let late = Duration::from_secs(2);
        sim::break_connections((TWO, Duration::ZERO), (ONE, late));
        sleep(Duration::from_secs(1)).await;
        assert!(talker.is_finished());
        assert_eq!(heard.borrow().concat(), "xx");
        sleep(late).await;
        assert_eq!(heard.borrow().concat(), "xxconnection reset");
    });
}

#[test]
fn a_stopped_host_does_nothing_until_it_goes_on_and_a_sleeping_one_loses_the_time() {
    block_on_seeded(13, async {
        let ticks = Rc::new(RefCell::new(Vec::new()));
        let ours = Rc::clone(&ticks);
        drop(sim::spawn_on(ONE, async move {
            let start = now();
            loop {
                sleep(Duration::from_secs(1)).await;
                ours.borrow_mut().push((now() - start).as_secs());
            }
        }));
        sleep(Duration::from_millis(2500)).await;
        sim::stop(ONE);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(*ticks.borrow(), [1, 2]);
        sim::go_on(ONE, Duration::ZERO);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(*ticks.borrow(), [1, 2, 12]);
        sim::stop(ONE);
        sleep(Duration::from_secs(100)).await;
        sim::go_on(ONE, Duration::from_secs(100));
        sleep(Duration::from_millis(1500)).await;
        assert_eq!(*ticks.borrow(), [1, 2, 12, 13]);
        let slept = sim::spawn_on(ONE, async { ogee_runtime::suspended_time() });
        assert_eq!(slept.await, Ok(Duration::from_secs(100)));
    });
}

#[test]
fn clocks_run_at_their_own_rates() {
    block_on_seeded(17, async {
        sim::set_clock_rate(ONE, 900_000);
        let slow = sim::spawn_on(ONE, async {
            let start = now();
            sleep(Duration::from_secs(9)).await;
            now() - start
        });
        let start = now();
        assert!(slow.await.expect("not killed") >= Duration::from_secs(9));
        let took = now() - start;
        assert!(took >= Duration::from_secs(10) && took < Duration::from_millis(10_001));
    });
}
