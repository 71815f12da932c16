//! Waiting for descriptors that are no sockets.
#![cfg(feature = "readiness")]

use ogee_runtime::executor::block_on;
use ogee_runtime::{Readiness, sleep, spawn, timeout};
use std::io::{Read, Write, pipe};
use std::os::fd::AsFd;
use std::time::Duration;

const SOON: Duration = Duration::from_millis(50);
const LATE: Duration = Duration::from_secs(10);

#[test]
fn many_events_that_nobody_waits_for_count_once() {
    block_on(async {
        let (mut read, mut write) = pipe().unwrap();
        let mut readiness = Readiness::new(&[read.as_fd()]).unwrap();
        for _ in 0..3 {
            assert!(timeout(SOON / 25, readiness.changed()).await.is_err());
            // More than a ring keeps completions.
            for _ in 0..100 {
                write.write_all(&[1]).unwrap();
                read.read_exact(&mut [0]).unwrap();
            }
            write.write_all(&[1]).unwrap();
            timeout(LATE, readiness.changed()).await.unwrap().unwrap();
            read.read_exact(&mut [0]).unwrap();
            let mut ended = 0;
            while timeout(SOON / 25, readiness.changed()).await.is_ok() {
                ended += 1;
                assert!(ended < 4);
            }
        }
    });
}

#[test]
fn each_event_ends_one_wait() {
    block_on(async {
        let (mut first, mut to_first) = pipe().unwrap();
        let (mut second, mut to_second) = pipe().unwrap();
        // What is there before counts.
        to_first.write_all(&[1]).unwrap();
        let mut readiness = Readiness::new(&[first.as_fd(), second.as_fd()]).unwrap();
        timeout(LATE, readiness.changed()).await.unwrap().unwrap();
        first.read_exact(&mut [0]).unwrap();
        for round in 0..50 {
            // It may end for nothing, but not for ever.
            let mut ended = 0;
            while timeout(SOON / 25, readiness.changed()).await.is_ok() {
                ended += 1;
                assert!(ended < 4, "{round}");
            }
            let (read, write) = if round % 2 == 0 {
                (&mut first, &mut to_first)
            } else {
                (&mut second, &mut to_second)
            };
            write.write_all(&[round]).unwrap();
            timeout(LATE, readiness.changed()).await.unwrap().unwrap();
            read.read_exact(&mut [0]).unwrap();
        }
        while timeout(SOON / 25, readiness.changed()).await.is_ok() {}
        // Also one that comes while the executor sleeps.
        let mut to_third = to_second.try_clone().unwrap();
        let writing = spawn(async move {
            sleep(SOON).await;
            to_third.write_all(&[9]).unwrap();
        });
        timeout(LATE, readiness.changed()).await.unwrap().unwrap();
        second.read_exact(&mut [0]).unwrap();
        writing.await.unwrap();
    });
}

/// Waits that are given up, as beside another event, take no signal with them.
#[test]
fn a_wait_that_is_given_up_loses_no_event() {
    block_on(async {
        let (mut read, mut write) = pipe().unwrap();
        let mut readiness = Readiness::new(&[read.as_fd()]).unwrap();
        for round in 0..300 {
            let given_up = Duration::from_micros(round % 40);
            for _ in 0..3 {
                let _ = timeout(given_up, readiness.changed()).await;
            }
            if round % 2 == 0 {
                // Nobody waits while this comes.
                write.write_all(&[1]).unwrap();
                timeout(LATE, readiness.changed()).await.unwrap().unwrap();
            } else {
                let mut later = write.try_clone().unwrap();
                let writing = spawn(async move {
                    sleep(Duration::from_micros(200)).await;
                    later.write_all(&[1]).unwrap();
                });
                timeout(LATE, readiness.changed()).await.unwrap().unwrap();
                writing.await.unwrap();
            }
            read.read_exact(&mut [0]).unwrap();
        }
    });
}
