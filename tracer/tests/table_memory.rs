//! A million live goroutines cost 128 bytes or less each, everything included: records, index, sites, and what growth
//! holds for a moment.
//!
//! A test binary of its own, with one test, because it counts every allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use gotracer::events::{Event, Transition};
use gotracer::goroutines::GoroutineTable;
use gotracer::units::{Goid, MonotonicNs, Pid, RemoteAddr};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIVE: u64 = 1_000_000;

fn event(time: u64, goid: u64, transition: Transition) -> Event {
    Event::Goroutine { time: MonotonicNs(time), pid: Pid(1), goid: Goid(goid), transition }
}

fn created(time: u64, goid: u64) -> Event {
    let (gopc, startpc) = (RemoteAddr(goid % 1000), RemoteAddr(7));
    event(time, goid, Transition::Created { parent: Goid(1), gopc, startpc })
}

#[test]
fn a_million_live_goroutines_fit_in_128_bytes_each_growth_and_churn_included() {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let mut table = GoroutineTable::new(Pid(1));
    let mut worst = 0.0f64;
    for goid in 1..=LIVE {
        table.apply(&created(goid, goid));
        table.apply(&event(goid, goid, Transition::Running));
        table.apply(&event(goid, goid, Transition::Blocked { reason: 14 }));
        // Below that the sites and the first chunks weigh more than the goroutines.
        if goid >= LIVE / 2 {
            worst = worst.max((PEAK.load(Ordering::Relaxed) - before) as f64 / goid as f64);
        }
    }
    assert_eq!(table.live().total(), LIVE);
    let settled = (NOW.load(Ordering::Relaxed) - before) as f64 / LIVE as f64;

    // Three million more come as many go, at random places: slots are reused and nothing grows.
    let mut random = 1u64;
    let mut goids: Vec<u64> = (1..=LIVE).collect();
    let own = goids.capacity() * size_of::<u64>();
    PEAK.store(NOW.load(Ordering::Relaxed), Ordering::Relaxed);
    for goid in LIVE + 1..=4 * LIVE {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let place = &mut goids[(random >> 33) as usize % LIVE as usize];
        table.apply(&event(goid, *place, Transition::Exited));
        table.apply(&created(goid, goid));
        *place = goid;
    }
    assert_eq!(table.live().total(), LIVE);
    let churned = (PEAK.load(Ordering::Relaxed) - before - own) as f64 / LIVE as f64;

    println!("bytes a goroutine: {settled:.1} settled, {worst:.1} at worst while growing, {churned:.1} after churn");
    assert!(settled <= 128.0 && worst <= 128.0 && churned <= 128.0);
    assert!(churned <= settled + 1.0, "churn must not grow the table");
}
