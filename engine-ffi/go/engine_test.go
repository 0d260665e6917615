package oncekey_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
)

var ctx = context.Background()

func open(t testing.TB) *oncekey.Engine {
	t.Helper()
	return openAt(t, t.TempDir())
}

func openAt(t testing.TB, path string) *oncekey.Engine {
	t.Helper()
	engine, err := oncekey.Open(path, &oncekey.Options{SegmentBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { engine.Close() })
	return engine
}

func named(name string) oncekey.Key { return oncekey.Key{Scope: "scope", Key: name} }

func body(text string) oncekey.Fingerprint { return oncekey.Fingerprint{}.Part("body", text) }

// begin begins and expects one kind of answer.
func begin[T oncekey.Begin](t testing.TB, engine *oncekey.Engine, name, text string) T {
	t.Helper()
	found, err := engine.Begin(ctx, named(name), body(text))
	if err != nil {
		t.Fatal(err)
	}
	wanted, ok := found.(T)
	if !ok {
		t.Fatalf("%s: found %T, not %T", name, found, wanted)
	}
	return wanted
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t testing.TB, err error, kind oncekey.Kind) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("%v is not %v", err, kind)
	}
}

func TestFiveOutcomes(t *testing.T) {
	engine := open(t)
	claim := begin[*oncekey.Claim](t, engine, "order", "2 apples")
	if claim.Attempt != 1 || claim.Checkpoint != nil || claim.Key != named("order") {
		t.Fatalf("%+v", claim)
	}
	locked := begin[*oncekey.InFlight](t, engine, "order", "2 apples")
	if locked.Attempt != 1 || locked.RetryAfter < 100*time.Millisecond || locked.RetryAfter > 500*time.Millisecond {
		t.Fatalf("%+v", locked)
	}
	if mismatch := begin[*oncekey.Mismatch](t, engine, "order", "3"); fmt.Sprint(mismatch.Parts) != "[body]" {
		t.Fatal(mismatch.Parts)
	}
	kept, err := claim.Complete(ctx, []byte("a\x00b"))
	if !kept || err != nil {
		t.Fatal(kept, err)
	}
	replay := begin[*oncekey.Recorded](t, engine, "order", "2 apples")
	if string(replay.Response) != "a\x00b" || replay.Token != claim.Token {
		t.Fatalf("%+v", replay)
	}
	if got := replay.ExpiresAt.Sub(replay.CompletedAt); got != 24*time.Hour {
		t.Fatal(got)
	}
	ok(t, begin[*oncekey.Claim](t, engine, "dropped", "b").Close())
	if orphan := begin[*oncekey.Orphan](t, engine, "dropped", "b"); orphan.Attempt != 1 {
		t.Fatalf("%+v", orphan)
	}
}

func TestClaimsEndOnce(t *testing.T) {
	engine := open(t)
	claim := begin[*oncekey.Claim](t, engine, "k", "b")
	ok(t, claim.SaveCheckpoint(ctx, []byte("half way")))
	is(t, claim.SaveCheckpoint(ctx, make([]byte, 64<<10+1)), oncekey.ErrInvalidInput)
	ok(t, claim.CompleteWithoutResponse(ctx))
	_, err := claim.Complete(ctx, nil)
	is(t, err, oncekey.ErrEnded)
	is(t, claim.Abort(ctx), oncekey.ErrEnded)
	is(t, claim.SaveCheckpoint(ctx, nil), oncekey.ErrEnded)
	ok(t, claim.Close())
	if replay := begin[*oncekey.Recorded](t, engine, "k", "b"); replay.Response != nil {
		t.Fatal("there is a response")
	}

	first := begin[*oncekey.Claim](t, engine, "ttl", "b")
	kept, err := first.CompleteFor(ctx, []byte{}, time.Minute)
	if !kept || err != nil {
		t.Fatal(kept, err)
	}
	replay := begin[*oncekey.Recorded](t, engine, "ttl", "b")
	if replay.Response == nil || replay.ExpiresAt.Sub(replay.CompletedAt) != time.Minute {
		t.Fatalf("%+v", replay)
	}
	large := begin[*oncekey.Claim](t, engine, "large", "b")
	if kept, err := large.Complete(ctx, make([]byte, 1<<20+1)); kept || err != nil {
		t.Fatal(kept, err)
	}
	ok(t, begin[*oncekey.Claim](t, engine, "aborted", "b").Abort(ctx))
	ok(t, begin[*oncekey.Claim](t, engine, "aborted", "c").Abort(ctx))
}

func TestOrphansAreResolvedOnce(t *testing.T) {
	engine := open(t)
	claim := begin[*oncekey.Claim](t, engine, "k", "b")
	ok(t, claim.SaveCheckpoint(ctx, []byte("half way")))
	ok(t, claim.Close())
	one := begin[*oncekey.Orphan](t, engine, "k", "b")
	two := begin[*oncekey.Orphan](t, engine, "k", "b")
	again, err := one.TakeOver(ctx)
	ok(t, err)
	if again.Attempt != 2 || string(again.Checkpoint) != "half way" || again.Key != named("k") {
		t.Fatalf("%+v", again)
	}
	is(t, two.Release(ctx), oncekey.ErrFenced)
	is(t, two.Release(ctx), oncekey.ErrEnded)
	var failed *oncekey.Error
	_, err = one.Complete(ctx, nil)
	if !errors.As(err, &failed) || failed.Kind != oncekey.ErrEnded {
		t.Fatal(err)
	}
	ok(t, again.Abort(ctx))
	orphans, err := engine.Orphans()
	ok(t, err)
	if len(orphans) != 1 || orphans[0].Key != named("k") || string(orphans[0].Checkpoint) != "half way" {
		t.Fatalf("%+v", orphans)
	}
	_, err = orphans[0].Complete(ctx, []byte("it happened"))
	ok(t, err)
	if replay := begin[*oncekey.Recorded](t, engine, "k", "b"); string(replay.Response) != "it happened" {
		t.Fatal(replay)
	}
	for i := range 100 {
		ok(t, begin[*oncekey.Claim](t, engine, fmt.Sprint("many ", i), "b").Close())
	}
	waitFor(t, engine, func(stats oncekey.Stats) bool { return stats.Abandoned == 101 })
	orphans, err = engine.Orphans()
	ok(t, err)
	if len(orphans) != 100 || !orphans[0].Since.Before(orphans[99].Since.Add(time.Millisecond)) {
		t.Fatal(len(orphans))
	}
	for _, orphan := range orphans[:50] {
		ok(t, orphan.Release(ctx))
	}
	for _, orphan := range orphans[50:] {
		ok(t, orphan.Close())
	}
}

func TestTheRestOfTheEngine(t *testing.T) {
	path := t.TempDir()
	engine := openAt(t, path)
	found, err := engine.Get(named("k"))
	if found != nil || err != nil {
		t.Fatal(found, err)
	}
	claim := begin[*oncekey.Claim](t, engine, "k", "b")
	found, err = engine.Get(named("k"))
	if _, locked := found.(*oncekey.InFlight); !locked || err != nil {
		t.Fatal(found, err)
	}
	ok(t, engine.Reopen())
	_, err = claim.Complete(ctx, []byte("late"))
	ok(t, err)
	ok(t, engine.Fold())
	_, err = engine.Sweep()
	ok(t, err)
	copied := filepath.Join(t.TempDir(), "copy")
	ok(t, engine.Backup(copied))
	is(t, engine.Backup(copied), oncekey.ErrInvalidInput)
	ok(t, oncekey.Verify(copied))
	is(t, oncekey.Verify(path), oncekey.ErrStoreInUse)
	stats, err := engine.Stats()
	if err != nil || stats.Completed != 1 || stats.Folds == 0 {
		t.Fatalf("%+v %v", stats, err)
	}
	ok(t, engine.Close())
	ok(t, engine.Close())
	ok(t, oncekey.Verify(path))
	_, err = engine.Begin(ctx, named("k"), body("b"))
	is(t, err, oncekey.ErrClosed)
	_, err = engine.Get(named("k"))
	is(t, err, oncekey.ErrClosed)

	_, err = oncekey.Open(filepath.Join(path, "none"), &oncekey.Options{Existing: true})
	is(t, err, oncekey.ErrStoreMissing)
	_, err = oncekey.Open(path, &oncekey.Options{SegmentBytes: 1})
	is(t, err, oncekey.ErrInvalidInput)
	if !strings.Contains(err.Error(), "segment_bytes") {
		t.Fatal(err)
	}
	_, err = oncekey.Open("", nil)
	is(t, err, oncekey.ErrInvalidInput)
}

func TestLimitsAreRefused(t *testing.T) {
	engine := open(t)
	long := strings.Repeat("x", 256)
	for _, key := range []oncekey.Key{{Key: ""}, {Key: long}, {Scope: long, Key: "k"}} {
		_, err := engine.Begin(ctx, key, body("b"))
		is(t, err, oncekey.ErrInvalidInput)
		_, err = engine.Get(key)
		is(t, err, oncekey.ErrInvalidInput)
	}
	many := oncekey.Fingerprint{}
	for range 65 {
		many = many.Part("l", "v")
	}
	for _, bad := range []oncekey.Fingerprint{many, oncekey.Fingerprint{}.Part(long, ""), oncekey.Fingerprint{}.Part("\xff", "")} {
		_, err := engine.Begin(ctx, named("k"), bad)
		is(t, err, oncekey.ErrInvalidInput)
	}
}

func TestFingerprintsHashAllTheyAreGiven(t *testing.T) {
	engine := open(t)
	large, larger := strings.Repeat("x", 5000), strings.Repeat("y", 6000)
	base := oncekey.Fingerprint{}.Part("a", "").Part("b", large).PartBytes("c", []byte(larger)).Part("d", "z")
	claim, err := engine.Begin(ctx, named("k"), base)
	ok(t, err)
	_, err = claim.(*oncekey.Claim).Complete(ctx, nil)
	ok(t, err)
	same := oncekey.Fingerprint{}.Part("a", "").PartBytes("b", []byte(large)).Part("c", larger).Part("d", "z")
	found, err := engine.Begin(ctx, named("k"), same)
	if _, replay := found.(*oncekey.Recorded); !replay || err != nil {
		t.Fatalf("%T %v", found, err)
	}
	other := oncekey.Fingerprint{}.Part("a", "!").Part("b", large+"x").Part("c", larger+"y").Part("d", "z!")
	found, err = engine.Begin(ctx, named("k"), other)
	ok(t, err)
	if parts := found.(*oncekey.Mismatch).Parts; fmt.Sprint(parts) != "[a b c d]" {
		t.Fatal(parts)
	}
}

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
	// The waiter wins the claim now, and gives it back: the key is free again.
	ok(t, owner.Abort(ctx))
	waitFor(t, engine, func(stats oncekey.Stats) bool { return stats.Aborted == 2 })
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

func waitFor(t *testing.T, engine *oncekey.Engine, reached func(oncekey.Stats) bool) {
	t.Helper()
	for {
		stats, err := engine.Stats()
		ok(t, err)
		if reached(stats) {
			return
		}
		if deadline, set := t.Deadline(); set && time.Until(deadline) < time.Second {
			t.Fatalf("never reached: %+v", stats)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestContextsThatEndAtAnyMomentLeaveNoClaim(t *testing.T) {
	engine := open(t)
	var group sync.WaitGroup
	var claimed atomic.Int32
	for i := range 300 {
		group.Add(1)
		go func() {
			defer group.Done()
			soon, cancel := context.WithTimeout(ctx, time.Duration(i)*20*time.Microsecond)
			defer cancel()
			found, err := engine.Begin(soon, named(fmt.Sprint(i)), body("b"))
			if err != nil {
				return
			}
			claimed.Add(1)
			ok(t, found.(*oncekey.Claim).Abort(ctx))
		}()
	}
	group.Wait()
	waitFor(t, engine, func(stats oncekey.Stats) bool { return stats.InFlight == 0 && stats.Queued == 0 })
	stats, _ := engine.Stats()
	if stats.Abandoned != 0 || stats.Orphans != 0 {
		t.Fatalf("%+v", stats)
	}
	t.Logf("%d of 300 were received", claimed.Load())
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

func TestGarbageClaimsAreOrphans(t *testing.T) {
	engine := open(t)
	begin[*oncekey.Claim](t, engine, "k", "b")
	waitFor(t, engine, func(stats oncekey.Stats) bool {
		runtime.GC()
		return stats.Abandoned == 1
	})
	begin[*oncekey.Orphan](t, engine, "k", "b")
}

func TestGarbageEnginesAreClosed(t *testing.T) {
	path := t.TempDir()
	_, err := oncekey.Open(path, nil)
	ok(t, err)
	for {
		runtime.GC()
		engine, err := oncekey.Open(path, nil)
		if err == nil {
			ok(t, engine.Close())
			return
		}
		is(t, err, oncekey.ErrStoreInUse)
		time.Sleep(time.Millisecond)
	}
}
