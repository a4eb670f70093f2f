//! The list: every runtime struct and field that gotracer reads, and the Go versions that have it.
//!
//! From this one list come the typed structs, the reading of DWARF and the generated tables. A field of type [`Field`] is
//! there in all versions since 1.18; one of type `Option<Field>` in those of its range, and there it must be. Several
//! paths for one field: it was renamed or moved into another, and the first that is there counts.
//!
//! Each struct names its definition in Go 1.27.3; `tests/binaries.rs` holds the list against every toolchain.

use std::ops::RangeInclusive;

use serde::Serialize;

use super::layout::{Facts, Field, LayoutError, LayoutSource, StructFacts};

/// From this minor on.
const fn since(minor: u16) -> RangeInclusive<u16> {
    minor..=u16::MAX
}

/// Up to this minor.
const fn until(minor: u16) -> RangeInclusive<u16> {
    0..=minor
}

/// The versions that have a field or struct.
const ALWAYS: RangeInclusive<u16> = since(0);

/// What a field of the list becomes: itself, or an `Option`.
trait Take: Sized {
    fn take(
        facts: &StructFacts<'_>,
        paths: &[&'static str],
        versions: RangeInclusive<u16>,
    ) -> Result<Self, LayoutError>;
}

impl Take for Field {
    fn take(facts: &StructFacts<'_>, paths: &[&'static str], _: RangeInclusive<u16>) -> Result<Self, LayoutError> {
        facts.field(paths).ok_or_else(|| facts.missing(paths))
    }
}

impl Take for Option<Field> {
    fn take(
        facts: &StructFacts<'_>,
        paths: &[&'static str],
        versions: RangeInclusive<u16>,
    ) -> Result<Self, LayoutError> {
        match facts.field(paths) {
            None if versions.contains(&facts.minor()) => Err(facts.missing(paths)),
            found => Ok(found),
        }
    }
}

/// What a struct of the list becomes. One in an `Option` may be missing in any program: the linker drops the types that
/// nothing uses.
trait TakeStruct: Sized {
    fn take(facts: &Facts<'_>) -> Result<Self, LayoutError>;
}

impl<T: TakeStruct + Listed> TakeStruct for Option<T> {
    fn take(facts: &Facts<'_>) -> Result<Self, LayoutError> {
        facts.structure(T::NAMES).map(|_| T::take(facts)).transpose()
    }
}

/// What a struct is called and what is wanted of it.
trait Listed {
    const NAMES: &'static [&'static str];
    const PATHS: &'static [&'static [&'static str]];
}

impl<T: Listed> Listed for Option<T> {
    const NAMES: &'static [&'static str] = T::NAMES;
    const PATHS: &'static [&'static [&'static str]] = T::PATHS;
}

macro_rules! structs {
    ($(
        $(#[$doc:meta])*
        $part:ident: $kind:ty = $layout:ident($($name:literal)|+), $range:expr, {
            $( $(#[$field_doc:meta])* $field:ident: $type:ty = $($path:literal)|+ $(, $versions:expr)?; )*
        }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
            pub struct $layout {
                /// The struct's own size, in bytes.
                pub size: u32,
                $( $(#[$field_doc])* pub $field: $type, )*
            }

            impl Listed for $layout {
                const NAMES: &'static [&'static str] = &[$($name),+];
                const PATHS: &'static [&'static [&'static str]] = &[$( &[$($path),+] ),*];
            }

            impl TakeStruct for $layout {
                fn take(facts: &Facts<'_>) -> Result<Self, LayoutError> {
                    let Some(structure) = facts.structure(Self::NAMES) else {
                        return Err(facts.missing_struct([$($name),+][0]));
                    };
                    Ok(Self {
                        size: structure.size(),
                        $( $field: Take::take(&structure, &[$($path),+], structs!(@versions $($versions)?))?, )*
                    })
                }
            }
        )*

        /// Where the runtime's structs have their fields, in one binary.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        pub struct Layout {
            /// DWARF or table.
            pub source: LayoutSource,
            $( $(#[$doc])* pub $part: $kind, )*
        }

        impl Layout {
            pub(super) fn from_facts(facts: &Facts<'_>, source: LayoutSource) -> Result<Self, LayoutError> {
                Ok(Self { source, $( $part: TakeStruct::take(facts)?, )* })
            }

            /// The names of all structs of the list.
            #[must_use]
            pub fn wanted_structs() -> Vec<&'static str> {
                [$( <$layout>::NAMES ),*].concat()
            }

            /// The struct names and field paths of the list that a program of Go 1.`minor` must have if it uses them;
            /// for whoever makes tables.
            #[must_use]
            pub fn wanted(minor: u16) -> Vec<(&'static [&'static str], &'static [&'static [&'static str]])> {
                let mut wanted: Vec<(&'static [&'static str], &'static [&'static [&'static str]])> = Vec::new();
                $( if ($range).contains(&minor) { wanted.push((<$kind>::NAMES, <$kind>::PATHS)); } )*
                wanted
            }
        }
    };
    (@versions) => { ALWAYS };
    (@versions $versions:expr) => { $versions };
}

structs! {
    /// `runtime.g`: a goroutine.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/runtime2.go#L471-L596>
    g: GLayout = GLayout("runtime.g"), ALWAYS, {
        /// The lowest address of its stack.
        stack_lo: Field = "stack.lo";
        /// The address behind its stack.
        stack_hi: Field = "stack.hi";
        /// What SP is compared with; a special value asks for preemption.
        stackguard0: Field = "stackguard0";
        /// Its innermost panic.
        panic: Field = "_panic";
        /// Its innermost defer.
        defers: Field = "_defer";
        /// The thread it runs on; 0 where it does not run.
        m: Field = "m";
        /// SP where it was stopped.
        sched_sp: Field = "sched.sp";
        /// PC where it was stopped.
        sched_pc: Field = "sched.pc";
        /// The closure to be entered, of one that was never run.
        sched_ctxt: Field = "sched.ctxt";
        /// The link register where it was stopped (arm64).
        sched_lr: Field = "sched.lr";
        /// The frame pointer where it was stopped.
        sched_bp: Field = "sched.bp";
        /// SP at the entry of the system call it is in.
        syscallsp: Field = "syscallsp";
        /// PC there.
        syscallpc: Field = "syscallpc";
        /// The frame pointer there.
        syscallbp: Option<Field> = "syscallbp", since(23);
        /// SP expected at the top of its stack.
        stktopsp: Field = "stktopsp";
        /// What the waker passes: the sudog of the channel operation that was done.
        param: Field = "param";
        /// Its status; see [`super::status`].
        atomicstatus: Field = "atomicstatus";
        /// Its id.
        goid: Field = "goid";
        /// The next goroutine of the list it is in.
        schedlink: Field = "schedlink";
        /// Since when it waits, as the collector noticed, in nanoseconds of the monotonic clock; often 0.
        waitsince: Field = "waitsince";
        /// Why it waits; see [`super::wait_reason`].
        waitreason: Field = "waitreason";
        /// Whether it has been asked to yield.
        preempt: Field = "preempt";
        /// Whether the collector has scanned its stack in this cycle.
        gcscandone: Field = "gcscandone";
        /// Whether channels point into its stack.
        active_stack_chans: Field = "activeStackChans";
        /// Whether it is about to park on a channel.
        parking_on_chan: Field = "parkingOnChan";
        /// Whether the runtime measures its scheduling latency.
        tracking: Field = "tracking";
        /// A counter of its wake-ups, modulo 256.
        tracking_seq: Field = "trackingSeq";
        /// When that measurement last began.
        tracking_stamp: Option<Field> = "trackingStamp", since(21);
        /// Nanoseconds it has been runnable, where measured.
        runnable_time: Field = "runnableTime";
        /// The thread it is locked to.
        lockedm: Field = "lockedm";
        /// Whether it runs user code from a cleanup queue.
        running_cleanups: Option<Field> = "runningCleanups", since(25);
        /// The goroutine that ran its `go` statement.
        parent_goid: Option<Field> = "parentGoid", since(21);
        /// The return address of its `go` statement.
        gopc: Field = "gopc";
        /// A slice of `ancestorInfo`, with GODEBUG=tracebackancestors.
        ancestors: Field = "ancestors";
        /// The function it runs.
        startpc: Field = "startpc";
        /// The sudogs it waits on, linked by `waitlink`, in lock order.
        waiting: Field = "waiting";
        /// A slice of cgo traceback contexts.
        cgo_ctxt: Field = "cgoCtxt";
        /// Its profiler labels.
        labels: Field = "labels";
        /// The timer of its `time.Sleep`.
        timer: Field = "timer";
        /// When that sleep ends, in nanoseconds of the monotonic clock.
        sleep_when: Option<Field> = "sleepWhen", since(23);
        /// Whether a case of its select has won.
        select_done: Field = "selectDone";
        /// The coroutine it is passing control to.
        coroarg: Option<Field> = "coroarg", since(22);
        /// The `testing/synctest` bubble it belongs to.
        bubble: Option<Field> = "bubble"|"syncGroup", since(24);
    }

    /// `runtime.m`: a thread.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/runtime2.go#L616-L729>
    m: MLayout = MLayout("runtime.m"), ALWAYS, {
        /// Its scheduling goroutine.
        g0: Field = "g0";
        /// Its signal-handling goroutine.
        gsignal: Field = "gsignal";
        /// The goroutine it runs.
        curg: Field = "curg";
        /// The processor it holds; 0 in a system call or idle.
        p: Field = "p";
        /// The processor handed to it.
        nextp: Field = "nextp";
        /// The processor it held before its system call.
        oldp: Field = "oldp";
        /// Its number.
        id: Field = "id";
        /// Its thread id, in the PID namespace of the program.
        procid: Field = "procid";
        /// The goroutine locked to it.
        lockedg: Field = "lockedg";
        /// Whether it looks for work.
        spinning: Field = "spinning";
        /// Whether it sleeps on a note.
        blocked: Field = "blocked";
        /// Whether it runs C code.
        incgo: Field = "incgo";
        /// Whether it was made for a C thread that calls Go.
        isextra: Option<Field> = "isextra", since(21);
        /// Whether such a thread has no Go frames now.
        is_extra_in_c: Option<Field> = "isExtraInC", since(21);
        /// Calls of C it has made.
        ncgocall: Field = "ncgocall";
        /// Calls of C it is in.
        ncgo: Field = "ncgo";
        /// The next thread of `runtime.allm`.
        alllink: Field = "alllink";
        /// `LockOSThread` calls of the program.
        locked_ext: Field = "lockedExt";
        /// `lockOSThread` calls of the runtime.
        locked_int: Field = "lockedInt";
        /// The next thread of `sched.freem`.
        freelink: Field = "freelink";
        /// Its thread-local storage; the first word is the current g on amd64.
        tls: Field = "tls";
        /// SP at its call of the vDSO; 0 where it is in none.
        vdso_sp: Field = "vdsoSP";
        /// PC there.
        vdso_pc: Field = "vdsoPC";
    }

    /// `runtime.p`: a processor, the right to run Go code.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/runtime2.go#L774-L930>
    p: PLayout = PLayout("runtime.p"), ALWAYS, {
        /// Its number.
        id: Field = "id";
        /// 0 idle, 1 running, 2 in a system call (up to Go 1.25), 3 stopped for the collector, 4 dead.
        status: Field = "status";
        /// The thread that holds it.
        m: Field = "m";
        /// Its allocation cache.
        mcache: Field = "mcache";
        /// How often it has scheduled.
        schedtick: Field = "schedtick";
        /// How often it has left for a system call.
        syscalltick: Field = "syscalltick";
        /// The index, modulo 256, of its queue's first goroutine.
        runqhead: Field = "runqhead";
        /// The index, modulo 256, behind its queue's last.
        runqtail: Field = "runqtail";
        /// The ring of 256 goroutines.
        runq: Field = "runq";
        /// The goroutine to run next.
        runnext: Field = "runnext";
        /// The slice of its timers: of `*timer` up to Go 1.22, of `timerWhen` from 1.23.
        timers: Field = "timers.heap"|"timers";
        /// The slice of free defers.
        deferpool: Field = "deferpool";
        /// The slice of free sudogs.
        sudogcache: Field = "sudogcache";
        /// The list of dead goroutines.
        g_free: Field = "gFree";
        /// The base of its page cache: an address that is no reference.
        page_cache_base: Field = "pcache.base";
        /// Its write barrier buffer.
        write_barrier_buffer: Field = "wbBuf";
        /// The block of cleanups it fills.
        cleanups: Option<Field> = "cleanups", since(25);
    }

    /// `runtime.schedt`, the type of `runtime.sched`: the scheduler.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/runtime2.go#L932-L1055>
    sched: SchedLayout = SchedLayout("runtime.schedt"), ALWAYS, {
        /// The last goroutine id handed out to a processor's batch.
        goidgen: Field = "goidgen";
        /// When the network was last polled, in nanoseconds; 0 while a thread sleeps in the poll.
        lastpoll: Field = "lastpoll";
        /// The first idle thread.
        midle: Field = "midle";
        /// How many threads are idle.
        nmidle: Field = "nmidle";
        /// How many threads wait for the goroutine locked to them.
        nmidlelocked: Field = "nmidlelocked";
        /// How many threads were made.
        mnext: Field = "mnext";
        /// How many threads are the runtime's own.
        nmsys: Field = "nmsys";
        /// How many threads have ended.
        nmfreed: Field = "nmfreed";
        /// How many goroutines are the runtime's own.
        ngsys: Field = "ngsys";
        /// How many goroutines are in system calls without a processor.
        ng_syscall_no_p: Option<Field> = "nGsyscallNoP", since(26);
        /// The first idle processor.
        pidle: Field = "pidle";
        /// How many processors are idle.
        npidle: Field = "npidle";
        /// How many threads look for work.
        nmspinning: Field = "nmspinning";
        /// The first goroutine of the global queue.
        runq_head: Field = "runq.head";
        /// Its last.
        runq_tail: Field = "runq.tail";
        /// How many are in it.
        runq_size: Field = "runq.size"|"runqsize";
        /// The dead goroutines that kept their stack.
        g_free_stack: Field = "gFree.stack";
        /// Those that did not.
        g_free_no_stack: Field = "gFree.noStack";
        /// Threads to be freed.
        freem: Field = "freem";
        /// Whether the world is being stopped.
        gcwaiting: Field = "gcwaiting";
        /// How many processors are still to stop.
        stopwait: Field = "stopwait";
        /// When GOMAXPROCS last changed, in nanoseconds.
        procresizetime: Field = "procresizetime";
        /// Nanoseconds goroutines have waited for mutexes.
        total_mutex_wait_time: Option<Field> = "totalMutexWaitTime", since(21);
        /// How many goroutines were made, without those the processors still count.
        goroutines_created: Option<Field> = "goroutinesCreated", since(26);
    }

    /// `runtime.sudog`: a goroutine in a wait queue.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/runtime2.go#L404-L446>
    sudog: SudogLayout = SudogLayout("runtime.sudog"), ALWAYS, {
        /// The goroutine.
        g: Field = "g";
        /// The next in the channel's queue, or a child in the semaphore's tree.
        next: Field = "next";
        /// The previous, or the other child.
        prev: Field = "prev";
        /// The data element, or the semaphore's address. Hidden behind a word for the collector from 1.26.
        elem: Field = "elem.vu"|"elem";
        /// When a profiled wait began, in CPU ticks.
        acquiretime: Field = "acquiretime";
        /// When it ended; -1 asks for it.
        releasetime: Field = "releasetime";
        /// The semaphore tree's priority, or the condition's ticket.
        ticket: Field = "ticket";
        /// Whether it is one of a select's.
        is_select: Field = "isSelect";
        /// Whether it was woken by a value and not by a close.
        success: Field = "success";
        /// Its parent in the semaphore's tree.
        parent: Field = "parent";
        /// The next sudog of the same goroutine, or the next waiter of the same semaphore.
        waitlink: Field = "waitlink";
        /// The last waiter of the same semaphore.
        waittail: Field = "waittail";
        /// The channel; 0 for a semaphore.
        c: Field = "c.maybeTraceablePtr.vu"|"c";
    }

    /// `runtime.hchan`: a channel.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/chan.go#L34-L55>
    hchan: HchanLayout = HchanLayout("runtime.hchan"), ALWAYS, {
        /// How many elements it holds.
        qcount: Field = "qcount";
        /// How many it can hold.
        dataqsiz: Field = "dataqsiz";
        /// Its ring.
        buf: Field = "buf";
        /// The size of an element, in bytes.
        elemsize: Field = "elemsize";
        /// Whether it is closed.
        closed: Field = "closed";
        /// The timer that feeds it.
        timer: Option<Field> = "timer", since(23);
        /// The type of an element.
        elemtype: Field = "elemtype";
        /// The index of the next element sent.
        sendx: Field = "sendx";
        /// The index of the next element received.
        recvx: Field = "recvx";
        /// The first sudog that waits to receive.
        recvq_first: Field = "recvq.first";
        /// The last.
        recvq_last: Field = "recvq.last";
        /// The first sudog that waits to send.
        sendq_first: Field = "sendq.first";
        /// The last.
        sendq_last: Field = "sendq.last";
        /// Its lock: 0 where nobody is changing it.
        lock: Field = "lock";
    }

    /// `runtime.timer`: one timer.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/time.go#L61-L123>
    timer: TimerLayout = TimerLayout("runtime.timer"), ALWAYS, {
        /// When it fires, in nanoseconds of the monotonic clock.
        when: Field = "when";
        /// Its period in nanoseconds; 0 for a single shot.
        period: Field = "period";
        /// The function it calls.
        f: Field = "f";
        /// That function's argument, an interface: type, then value.
        arg: Field = "arg";
        /// That function's second argument.
        seq: Field = "seq";
        /// When a modified timer fires.
        nextwhen: Option<Field> = "nextwhen", until(22);
        /// Its state up to 1.22.
        status: Option<Field> = "status", until(22);
        /// Its state from 1.23: bits heaped 1, modified 2, zombie 4.
        state: Option<Field> = "state", since(23);
        /// Whether it feeds a channel.
        is_chan: Option<Field> = "isChan", since(23);
        /// How many goroutines wait for that channel.
        blocked: Option<Field> = "blocked", since(23);
        /// The heap it is in.
        timers: Option<Field> = "ts", since(23);
    }

    /// `runtime.timers`: a processor's timers, from Go 1.23.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/time.go#L136-L165>
    timers: Option<TimersLayout> = TimersLayout("runtime.timers"), since(23), {
        /// The slice of `timerWhen`.
        heap: Field = "heap";
        /// How many there are.
        len: Field = "len";
        /// How many of them are to be removed.
        zombies: Field = "zombies";
    }

    /// `runtime.timerWhen`: an entry of that heap.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/time.go#L167-L170>
    timer_when: Option<TimerWhenLayout> = TimerWhenLayout("runtime.timerWhen"), since(23), {
        /// The timer.
        timer: Field = "timer";
        /// When it fires.
        when: Field = "when";
    }

    /// `runtime.semaRoot`: the waiters of the semaphores of one hash bucket.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/sema.go#L40-L44>
    sema_root: SemaRootLayout = SemaRootLayout("runtime.semaRoot"), ALWAYS, {
        /// The root of the tree of sudogs, one for each address, the others behind `waitlink`.
        treap: Field = "treap";
        /// How many wait.
        nwait: Field = "nwait";
    }

    /// `runtime.semTable`, the type of `runtime.semtable`: all buckets.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/sema.go#L51-L54>
    sema_table: SemaTableLayout = SemaTableLayout("runtime.semTable"), ALWAYS, {
        /// The first bucket; its size is the distance to the next.
        bucket: Field = "[0]";
        /// The `semaRoot` in it.
        root: Field = "[0].root";
    }

    /// `runtime.notifyList`: the waiters of a `sync.Cond`.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/sema.go#L547-L565>
    notify_list: Option<NotifyListLayout> = NotifyListLayout("runtime.notifyList"), ALWAYS, {
        /// The ticket of the next waiter.
        wait: Field = "wait";
        /// The ticket of the next to be woken.
        notify: Field = "notify";
        /// The first sudog.
        head: Field = "head";
        /// The last.
        tail: Field = "tail";
    }

    /// `runtime.mheap`, the type of `runtime.mheap_`: the heap.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/mheap.go#L64-L262>
    mheap: MheapLayout = MheapLayout("runtime.mheap"), ALWAYS, {
        /// The sweep generation; it grows by 2 a cycle.
        sweepgen: Field = "sweepgen";
        /// The slice of all spans.
        allspans: Field = "allspans";
        /// Pages (8 KiB) in spans of the heap.
        pages_in_use: Field = "pagesInUse";
        /// The table of arenas.
        arenas: Field = "arenas";
    }

    /// `runtime.mspan`: a run of pages with objects of one size.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/mheap.go#L422-L516>
    mspan: MspanLayout = MspanLayout("runtime.mspan"), ALWAYS, {
        /// The next span of its list.
        next: Field = "next";
        /// Its first byte.
        start_addr: Field = "startAddr";
        /// Its length in pages of 8 KiB.
        npages: Field = "npages";
        /// The slot at which the search for a free one goes on; all before it are in use.
        freeindex: Field = "freeindex";
        /// The same as conservative scans may rely on it.
        free_index_for_scan: Field = "freeIndexForScan";
        /// How many slots it has.
        nelems: Field = "nelems";
        /// The complement of the bits of `allocBits` at `freeindex`.
        alloc_cache: Field = "allocCache";
        /// Slots in use at the last sweep.
        alloc_bits: Field = "allocBits";
        /// Slots marked in this cycle.
        gcmark_bits: Field = "gcmarkBits";
        /// Its sweep generation against the heap's.
        sweepgen: Field = "sweepgen";
        /// How many slots are in use.
        alloc_count: Field = "allocCount";
        /// Size class times two, plus one where objects hold no pointers.
        spanclass: Field = "spanclass";
        /// 0 dead, 1 in use, 2 managed by hand (stacks).
        state: Field = "state";
        /// Whether it belongs to a user arena.
        is_user_arena_chunk: Option<Field> = "isUserArenaChunk", since(21);
        /// The size of a slot, in bytes.
        elemsize: Field = "elemsize";
        /// The end of its data.
        limit: Field = "limit";
        /// Its list of special records, by offset.
        specials: Field = "specials";
        /// The type of the object of a span with a single one.
        large_type: Option<Field> = "largeType", since(22);
    }

    /// `runtime.heapArena`, where the heap bitmap is up to Go 1.21: what is known of 64 MiB of the heap.
    ///
    /// - 1.20, 1.21: a bit a word, <https://github.com/golang/go/blob/go1.21.13/src/runtime/mheap.go#L237-L313>
    /// - before: two bits a word, <https://github.com/golang/go/blob/go1.19.8/src/runtime/mheap.go#L218-L275>
    heap_arena: Option<HeapArenaLayout> = HeapArenaLayout("runtime.heapArena"), until(21), {
        /// Which words hold pointers.
        bitmap: Option<Field> = "bitmap", until(21);
        /// For 64 words of the bitmap a bit: whether no pointer follows in the object that reaches over its end.
        no_more_ptrs: Option<Field> = "noMorePtrs", 20..=21;
    }

    /// `runtime.mcache`: the spans that a processor allocates from.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/mcache.go#L20-L66>
    mcache: McacheLayout = McacheLayout("runtime.mcache"), ALWAYS, {
        /// The block that tiny objects are cut from.
        tiny: Field = "tiny";
        /// How much of it is used.
        tiny_offset: Field = "tinyoffset";
        /// The current span of each span class.
        alloc: Field = "alloc";
    }

    /// `runtime.special`: something attached to an object. The kinds' numbers change between versions.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/mheap.go#L1965-L1970>
    special: SpecialLayout = SpecialLayout("runtime.special"), ALWAYS, {
        /// The next one of the span.
        next: Field = "next";
        /// The object's place in the span, in bytes; 2 bytes wide up to Go 1.23.
        offset: Field = "offset";
        /// What it is.
        kind: Field = "kind";
    }

    /// `runtime.specialfinalizer`.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/mheap.go#L2091-L2098>
    special_finalizer: Option<SpecialFinalizerLayout> = SpecialFinalizerLayout("runtime.specialfinalizer"), ALWAYS, {
        /// The record.
        special: Field = "special";
        /// The finalizer.
        f: Field = "fn";
        /// The type of its argument.
        arg_type: Field = "fint";
        /// The type of the pointer to the object.
        object_type: Field = "ot";
    }

    /// `runtime.specialCleanup`, from Go 1.24.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/mheap.go#L2151-L2157>
    special_cleanup: Option<SpecialCleanupLayout> = SpecialCleanupLayout("runtime.specialCleanup"), since(24), {
        /// The record.
        special: Field = "special";
        /// The function it calls.
        f: Field = "cleanup.fn"|"fn";
        /// Its number.
        id: Field = "id";
    }

    /// `runtime.specialWeakHandle`, from Go 1.23.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/mheap.go#L2391-L2398>
    special_weak_handle: Option<SpecialWeakHandleLayout> = SpecialWeakHandleLayout("runtime.specialWeakHandle"), since(23), {
        /// The record.
        special: Field = "special";
        /// The word that weak pointers share.
        handle: Field = "handle";
    }

    /// `runtime.finalizer`: one that is queued to run.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/mfinal.go#L59-L65>
    finalizer: Option<FinalizerLayout> = FinalizerLayout("runtime.finalizer"), ALWAYS, {
        /// The function.
        f: Field = "fn";
        /// Its argument.
        arg: Field = "arg";
    }

    /// `runtime.finBlock` (`finblock` up to 1.24): a block of queued finalizers.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/mfinal.go#L26-L33>
    fin_block: Option<FinBlockLayout> = FinBlockLayout("runtime.finBlock"|"runtime.finblock"), ALWAYS, {
        /// The next of all blocks.
        all_link: Field = "alllink";
        /// The next of the queue.
        next: Field = "next";
        /// How many it holds.
        count: Field = "cnt";
        /// The first of them.
        finalizers: Field = "fin";
    }

    /// `runtime.cleanupBlock`, from Go 1.25: a block of queued cleanups.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/mcleanup.go#L290-L293>
    cleanup_block: Option<CleanupBlockLayout> = CleanupBlockLayout("runtime.cleanupBlock"), since(25), {
        /// The next of all blocks.
        all_link: Field = "cleanupBlockHeader.alllink";
        /// How many it holds.
        count: Field = "cleanupBlockHeader.n";
        /// The first of them.
        cleanups: Field = "cleanups";
    }

    /// `runtime.cleanupQueue`, the type of `runtime.gcCleanups`, from Go 1.25.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/mcleanup.go#L365-L436>
    cleanup_queue: Option<CleanupQueueLayout> = CleanupQueueLayout("runtime.cleanupQueue"), since(25), {
        /// The first of all blocks.
        all: Field = "all";
        /// The blocks that wait to be run.
        full: Field = "full";
    }

    /// `runtime.gcControllerState`, the type of `runtime.gcController`: the collector's pacer.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/mgcpacer.go#L92-L369>
    gc_controller: GcControllerLayout = GcControllerLayout("runtime.gcControllerState"), ALWAYS, {
        /// GOGC; negative for off.
        gc_percent: Field = "gcPercent";
        /// GOMEMLIMIT, in bytes.
        memory_limit: Option<Field> = "memoryLimit", since(19);
        /// The heap size at which a cycle should end as GOGC alone would have it, in bytes.
        heap_goal: Field = "gcPercentHeapGoal"|"heapGoal";
        /// The heap size at which this cycle began, in bytes.
        triggered: Field = "triggered";
        /// The goal of the cycle before, in bytes.
        last_heap_goal: Field = "lastHeapGoal";
        /// Bytes of the heap that were live at the last cycle, and those allocated since.
        heap_live: Field = "heapLive";
        /// Bytes the last cycle marked.
        heap_marked: Field = "heapMarked";
        /// Bytes of stack the last cycle scanned.
        last_stack_scan: Field = "lastStackScan";
        /// Bytes in spans of the heap.
        heap_in_use: Option<Field> = "heapInUse", since(19);
        /// Bytes given back to the system.
        heap_released: Option<Field> = "heapReleased", since(19);
        /// Bytes in no span and not given back.
        heap_free: Option<Field> = "heapFree", since(19);
        /// Bytes ever allocated, by spans.
        total_alloc: Option<Field> = "totalAlloc", since(19);
        /// Bytes ever freed, by spans.
        total_free: Option<Field> = "totalFree", since(19);
        /// Bytes of address space that are ready for use.
        mapped_ready: Option<Field> = "mappedReady", since(19);
    }

    /// `runtime.mstats`, the type of `runtime.memstats`.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/mstats.go#L15-L50>
    memstats: MemstatsLayout = MemstatsLayout("runtime.mstats"), ALWAYS, {
        /// Three `heapStatsDelta`: the sum of a figure over them is its value.
        heap_stats: Field = "heapStats.stats";
        /// The first; its size is the distance to the next.
        heap_stats_delta: Field = "heapStats.stats[0]";
        /// In the first: bytes of memory committed.
        committed: Field = "heapStats.stats[0].committed";
        /// In the first: bytes given back.
        released: Field = "heapStats.stats[0].released";
        /// In the first: bytes in spans of the heap.
        in_heap: Field = "heapStats.stats[0].inHeap";
        /// In the first: bytes in spans of stacks.
        in_stacks: Field = "heapStats.stats[0].inStacks";
        /// Bytes of the threads' own stacks.
        stacks_sys: Field = "stacks_sys";
        /// When the last cycle ended, in nanoseconds since 1970.
        last_gc_unix: Field = "last_gc_unix";
        /// Nanoseconds the world was stopped by the collector.
        pause_total_ns: Field = "pause_total_ns";
        /// A ring of 256 pauses, in nanoseconds; the last at `(numgc+255) % 256`.
        pause_ns: Field = "pause_ns";
        /// When each ended, in nanoseconds since 1970.
        pause_end: Field = "pause_end";
        /// How many cycles there were.
        numgc: Field = "numgc";
        /// How many of them the program asked for.
        numforcedgc: Field = "numforcedgc";
        /// The share of the CPU time that went to the collector, a float64.
        gc_cpu_fraction: Field = "gc_cpu_fraction";
        /// When the last cycle ended, in nanoseconds of the monotonic clock.
        last_gc_nanotime: Field = "last_gc_nanotime";
    }

    /// `runtime.workType`, the type of `runtime.work` from Go 1.20: the collector's cycle.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/mgc.go#L327-L517>
    work: Option<WorkLayout> = WorkLayout("runtime.workType"), ALWAYS, {
        /// How many cycles have begun.
        cycles: Field = "cycles";
        /// GOMAXPROCS at the start of the cycle.
        stwprocs: Field = "stwprocs";
        /// When this cycle began, in nanoseconds of the monotonic clock.
        t_sweep_term: Field = "tSweepTerm";
        /// When marking began.
        t_mark: Field = "tMark";
        /// When marking ended.
        t_mark_term: Field = "tMarkTerm";
        /// When the cycle ended; before `tSweepTerm` while one runs.
        t_end: Field = "tEnd";
        /// Nanoseconds the world was stopped in this cycle.
        pause_ns: Field = "pauseNS";
    }

    /// `runtime._defer`: a deferred call.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/runtime2.go#L1154-L1165>
    defer_record: DeferLayout = DeferLayout("runtime._defer"), ALWAYS, {
        /// Whether it lies in the heap.
        heap: Field = "heap";
        /// SP of the frame that deferred it.
        sp: Field = "sp";
        /// PC there.
        pc: Field = "pc";
        /// The function.
        f: Field = "fn";
        /// The next one of the goroutine.
        link: Field = "link";
    }

    /// `runtime._panic`: a panic under way.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/runtime2.go#L1175-L1201>
    panic_record: PanicLayout = PanicLayout("runtime._panic"), ALWAYS, {
        /// Its value, an interface.
        arg: Field = "arg";
        /// The one before it.
        link: Field = "link";
    }

    /// `runtime.coro`: a coroutine of `iter.Pull`, from Go 1.22.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/coro.go#L27-L35>
    coro: Option<CoroLayout> = CoroLayout("runtime.coro"), since(22), {
        /// The goroutine that is stopped in it.
        gp: Field = "gp";
        /// Its function.
        f: Field = "f";
    }

    /// `runtime.ancestorInfo`: a creator's stack, with GODEBUG=tracebackancestors.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/runtime2.go#L1213-L1217>
    ancestor: AncestorLayout = AncestorLayout("runtime.ancestorInfo"), ALWAYS, {
        /// The slice of its return addresses.
        pcs: Field = "pcs";
        /// Its id.
        goid: Field = "goid";
        /// Its own `go` statement.
        gopc: Field = "gopc";
    }

    /// `internal/abi.Type` (`runtime._type` up to 1.20): the head of a type descriptor.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/internal/abi/type.go#L21-L46>
    type_record: TypeLayout = TypeLayout("internal/abi.Type"|"runtime._type"), ALWAYS, {
        /// The size of a value, in bytes.
        type_size: Field = "Size_"|"size";
        /// The length of the part of a value that holds pointers, in bytes.
        ptr_bytes: Field = "PtrBytes"|"ptrdata";
        /// Its hash.
        hash: Field = "Hash"|"hash";
        /// Flags.
        tflag: Field = "TFlag"|"tflag";
        /// Its kind in the low five bits; above them flags, in some versions.
        kind: Field = "Kind_"|"kind";
        /// Its pointer mask or program.
        gc_data: Field = "GCData"|"gcdata";
        /// Its name, as an offset from `moduledata.types`.
        name: Field = "Str"|"str";
    }

    /// `runtime.moduledata`: where everything of the program lies.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/symtab.go#L402-L450>
    moduledata: ModuledataLayout = ModuledataLayout("runtime.moduledata"), ALWAYS, {
        /// The start of its text.
        text: Field = "text";
        /// The end.
        etext: Field = "etext";
        /// The start of its data without pointers.
        noptrdata: Field = "noptrdata";
        /// The end.
        enoptrdata: Field = "enoptrdata";
        /// The start of its data with pointers.
        data: Field = "data";
        /// The end.
        edata: Field = "edata";
        /// The start of its zeroed data with pointers.
        bss: Field = "bss";
        /// The end.
        ebss: Field = "ebss";
        /// The start of its zeroed data without.
        noptrbss: Field = "noptrbss";
        /// The end.
        enoptrbss: Field = "enoptrbss";
        /// The base of the pointer masks of stack objects.
        rodata: Field = "rodata";
        /// The start of its type descriptors.
        types: Field = "types";
        /// The end.
        etypes: Field = "etypes";
        /// The base of function data.
        gofunc: Field = "gofunc";
        /// How many words `data` has.
        gc_data_mask_bits: Field = "gcdatamask.n";
        /// A bit for each: whether it is a pointer.
        gc_data_mask: Field = "gcdatamask.bytedata";
        /// How many words `bss` has.
        gc_bss_mask_bits: Field = "gcbssmask.n";
        /// A bit for each: whether it is a pointer.
        gc_bss_mask: Field = "gcbssmask.bytedata";
        /// The slice of text sections.
        text_sections: Field = "textsectmap";
        /// The next module: a plugin's.
        next: Field = "next";
    }

    /// `runtime.synctestBubble`: what goroutines under `testing/synctest` have in common; `synctestGroup` in Go 1.24.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/synctest.go#L15-L45>
    synctest_bubble: Option<SynctestBubbleLayout> = SynctestBubbleLayout("runtime.synctestBubble"|"runtime.synctestGroup"), since(24), {
        /// Its number.
        id: Option<Field> = "id", since(25);
        /// The goroutine that made it, whose number is the group's in Go 1.24.
        root: Field = "root";
    }

    /// `runtime.dbgVar`: a setting of GODEBUG.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/runtime1.go#L295-L300>
    debug_variable: Option<DebugVariableLayout> = DebugVariableLayout("runtime.dbgVar"), ALWAYS, {
        /// Its name.
        name: Field = "name";
        /// Its value, an `int32`, where it may change while the program runs; else 0.
        atomic: Option<Field> = "atomic", since(21);
    }
}
