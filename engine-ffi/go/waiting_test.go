package oncekey_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
	"github.com/oncekey/oncekey/engine-ffi/go/internal/teststore"
)

func TestAnEndedContextAbortsAClaimThatWasNotReceived(t *testing.T) {
	engine := open(t)
	owner := begin[*oncekey.Claim](t, engine, "k", "b")
	waiting, cancel := context.WithCancelCause(ctx)
	ended := make(chan error)
	go func() {
		_, err := engine.BeginWaiting(waiting, named("k"), body("b"), time.Minute)
		ended <- err
	}()
	waitFor(t, engine, func(stats oncekey.Stats) bool { return stats.Waiters == 1 })
	why := errors.New("the client is gone")
	cancel(why)
	if err := <-ended; err != why {
		t.Fatal(err)
	}
	// The waiter is gone, or gets the claim now and gives it back. Either way the key is free again.
	ok(t, owner.Abort(ctx))
	waitFor(t, engine, func(stats oncekey.Stats) bool { return stats.Waiters == 0 && stats.InFlight == 0 })
	again := begin[*oncekey.Claim](t, engine, "k", "b")
	if again.Attempt != 1 {
		t.Fatal("an orphan was left")
	}
	_, err := engine.Begin(waiting, named("other"), body("b"))
	if err != why {
		t.Fatal(err)
	}
	// A completion goes on without its caller.
	_, err = again.Complete(waiting, []byte("r"))
	if err != nil && err != why {
		t.Fatal(err)
	}
	waitFor(t, engine, func(stats oncekey.Stats) bool { return stats.Completed == 1 })
	if stats, _ := engine.Stats(); stats.Abandoned != 0 || stats.InFlight != 0 {
		t.Fatalf("%+v", stats)
	}
}

// No owner ends and no bound passes, so only the context makes room.
func TestAnEndedContextMakesRoomForOthersThatWait(t *testing.T) {
	engine, err := oncekey.Open(teststore.New(t), &oncekey.Options{MaxWaiters: 1})
	ok(t, err)
	t.Cleanup(func() { ok(t, engine.Close()) })
	owner := begin[*oncekey.Claim](t, engine, "k", "b")
	wait := func(ctx context.Context) chan any {
		ended := make(chan any, 1)
		go func() {
			found, err := engine.BeginWaiting(ctx, named("k"), body("b"), 24*time.Hour)
			if err != nil {
				ended <- err
			} else {
				ended <- found
			}
		}()
		return ended
	}
	for range 3 {
		waiting, cancel := context.WithCancel(ctx)
		given := wait(waiting)
		waitFor(t, engine, func(stats oncekey.Stats) bool { return stats.Waiters == 1 })
		_, err := engine.BeginWaiting(ctx, named("k"), body("b"), time.Minute)
		is(t, err, oncekey.ErrOverloaded)
		cancel()
		if err := <-given; err != context.Canceled {
			t.Fatal(err)
		}
		waitFor(t, engine, func(stats oncekey.Stats) bool { return stats.Waiters == 0 })
	}
	last := wait(ctx)
	waitFor(t, engine, func(stats oncekey.Stats) bool { return stats.Waiters == 1 })
	_, err = owner.Complete(ctx, []byte("r"))
	ok(t, err)
	if recorded, replay := (<-last).(*oncekey.Recorded); !replay || string(recorded.Response) != "r" {
		t.Fatal(recorded)
	}
}

// Calls begin 300 times at once, with contexts that end sooner or later, and aborts every claim.
// Returns the number of claims.
func beginUntilAnyMoment(t *testing.T, begin func(soon context.Context, i int) (oncekey.Begin, error)) int32 {
	var group sync.WaitGroup
	var claimed atomic.Int32
	for i := range 300 {
		group.Add(1)
		go func() {
			defer group.Done()
			soon, cancel := context.WithTimeout(ctx, time.Duration(i)*20*time.Microsecond)
			defer cancel()
			found, err := begin(soon, i)
			if err != nil {
				return
			}
			claimed.Add(1)
			ok(t, found.(*oncekey.Claim).Abort(ctx))
		}()
	}
	group.Wait()
	return claimed.Load()
}

func TestWaitsThatEndAtAnyMomentLoseNeitherRoomNorKeys(t *testing.T) {
	engine := open(t)
	beginUntilAnyMoment(t, func(soon context.Context, _ int) (oncekey.Begin, error) {
		return engine.BeginWaiting(soon, named("k"), body("b"), 24*time.Hour)
	})
	found, err := engine.BeginWaiting(ctx, named("k"), body("b"), 24*time.Hour)
	ok(t, err)
	ok(t, found.(*oncekey.Claim).Abort(ctx))
	waitFor(t, engine, func(stats oncekey.Stats) bool { return stats.Waiters == 0 && stats.InFlight == 0 })
	if stats, _ := engine.Stats(); stats.Abandoned != 0 || stats.Orphans != 0 {
		t.Fatalf("%+v", stats)
	}
}

func TestContextsThatEndAtAnyMomentLeaveNoClaim(t *testing.T) {
	engine := open(t)
	claimed := beginUntilAnyMoment(t, func(soon context.Context, i int) (oncekey.Begin, error) {
		return engine.Begin(soon, named(fmt.Sprint(i)), body("b"))
	})
	waitFor(t, engine, func(stats oncekey.Stats) bool { return stats.InFlight == 0 && stats.Queued == 0 })
	stats, _ := engine.Stats()
	if stats.Abandoned != 0 || stats.Orphans != 0 {
		t.Fatalf("%+v", stats)
	}
	t.Logf("%d of 300 were received", claimed)
}

func TestWaitingGoroutinesHoldNoThreads(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("counts threads in /proc")
	}
	engine := open(t)
	owner := begin[*oncekey.Claim](t, engine, "k", "b")
	const waiters = 2000
	before := threads(t)
	var group sync.WaitGroup
	for range waiters {
		group.Add(1)
		go func() {
			defer group.Done()
			found, err := engine.BeginWaiting(ctx, named("k"), body("b"), time.Minute)
			if recorded, replay := found.(*oncekey.Recorded); err != nil || !replay || string(recorded.Response) != "r" {
				t.Errorf("%T %v", found, err)
			}
		}()
	}
	waitFor(t, engine, func(stats oncekey.Stats) bool { return stats.Waiters == waiters })
	during := threads(t)
	t.Logf("%d threads before, %d with %d goroutines waiting", before, during, waiters)
	if during > before+8 {
		t.Errorf("%d threads, %d before", during, before)
	}
	_, err := owner.Complete(ctx, []byte("r"))
	ok(t, err)
	group.Wait()
}

func threads(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/task")
	ok(t, err)
	return len(entries)
}

func TestManyGoroutinesShareOneEngine(t *testing.T) {
	engine := open(t)
	const goroutines, keys = 64, 50
	var executed [keys]atomic.Int32
	var group sync.WaitGroup
	for range goroutines {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := range keys {
				name := fmt.Sprint("key ", i)
				found, err := engine.BeginWaiting(ctx, named(name), body("b"), time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				switch found := found.(type) {
				case *oncekey.Claim:
					executed[i].Add(1)
					if _, err := found.Complete(ctx, []byte(name)); err != nil {
						t.Error(err)
					}
				case *oncekey.Recorded:
					if string(found.Response) != name {
						t.Errorf("%q for %q", found.Response, name)
					}
				default:
					t.Errorf("%T", found)
				}
			}
		}()
	}
	group.Wait()
	for i := range executed {
		if n := executed[i].Load(); n != 1 {
			t.Errorf("key %d was executed %d times", i, n)
		}
	}
}

func TestCloseAnswersWhoeverWaits(t *testing.T) {
	engine := open(t)
	owner := begin[*oncekey.Claim](t, engine, "k", "b")
	var group sync.WaitGroup
	for range 50 {
		group.Add(1)
		go func() {
			defer group.Done()
			_, err := engine.BeginWaiting(ctx, named("k"), body("b"), time.Minute)
			is(t, err, oncekey.ErrClosed)
		}()
	}
	waitFor(t, engine, func(stats oncekey.Stats) bool { return stats.Waiters == 50 })
	ok(t, engine.Close())
	group.Wait()
	_, err := owner.Complete(ctx, nil)
	is(t, err, oncekey.ErrClosed)
	ok(t, owner.Close())
}
