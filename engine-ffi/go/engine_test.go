package oncekey_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
	"github.com/oncekey/oncekey/engine-ffi/go/internal/teststore"
)

var ctx = context.Background()

func open(t testing.TB) *oncekey.Engine {
	t.Helper()
	return openAt(t, teststore.New(t))
}

func openAt(t testing.TB, path string) *oncekey.Engine {
	t.Helper()
	engine, err := oncekey.Open(path, &oncekey.Options{SegmentBytes: teststore.SegmentBytes()})
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

func TestTheRestOfTheEngine(t *testing.T) {
	teststore.OfDirectories(t)
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

// With at most 4096 bytes of values the parts go along with the begin.
func TestSmallFingerprintsHashAllTheyAreGiven(t *testing.T) {
	engine := open(t)
	names := strings.Split("abcdefghij", "")
	of := func(changed int) (made oncekey.Fingerprint) {
		for i, name := range names {
			value := "value " + name
			if i == changed {
				value = "valuE " + name
			}
			made = made.Part(name, value)
		}
		return made
	}
	found, err := engine.Begin(ctx, named("k"), of(-1))
	ok(t, err)
	claim := found.(*oncekey.Claim)
	for i, name := range names {
		found, err := engine.Begin(ctx, named("k"), of(i))
		ok(t, err)
		if mismatch, other := found.(*oncekey.Mismatch); !other || fmt.Sprint(mismatch.Parts) != "["+name+"]" {
			t.Fatalf("%s: %T %+v", name, found, found)
		}
	}
	found, err = engine.Begin(ctx, named("k"), of(-1))
	ok(t, err)
	if _, locked := found.(*oncekey.InFlight); !locked {
		t.Fatalf("%T", found)
	}
	ok(t, claim.Abort(ctx))
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

func TestTheRestOfASharedStore(t *testing.T) {
	if !teststore.Shared() {
		_, err := oncekey.Open("postgres://db.invalid/shop", nil)
		is(t, err, oncekey.ErrUnsupported)
		if !strings.Contains(err.Error(), "--features postgres") {
			t.Fatal(err)
		}
		_, err = oncekey.Open(t.TempDir(), &oncekey.Options{Lease: time.Second})
		is(t, err, oncekey.ErrInvalidInput)
		if !strings.Contains(err.Error(), "lease_ms") {
			t.Fatal(err)
		}
		return
	}
	url := teststore.New(t)
	_, err := oncekey.Open(url, &oncekey.Options{Existing: true})
	is(t, err, oncekey.ErrStoreMissing)
	_, err = oncekey.Open(url, &oncekey.Options{SegmentBytes: 4096})
	is(t, err, oncekey.ErrInvalidInput)
	if !strings.Contains(err.Error(), "segment_bytes") {
		t.Fatal(err)
	}
	named := func(name string) *oncekey.Engine {
		engine, err := oncekey.Open(url, &oncekey.Options{Schema: "shop", InstanceName: name, Lease: 5 * time.Minute})
		ok(t, err)
		t.Cleanup(func() { engine.Close() })
		return engine
	}
	one, other := named("pod-1"), named("pod-2")
	claim := begin[*oncekey.Claim](t, one, "k", "b")
	if locked := begin[*oncekey.InFlight](t, other, "k", "b"); locked.Attempt != 1 {
		t.Fatalf("%+v", locked)
	}
	_, err = claim.Complete(ctx, []byte("done"))
	ok(t, err)
	if replay := begin[*oncekey.Recorded](t, other, "k", "b"); string(replay.Response) != "done" {
		t.Fatalf("%+v", replay)
	}
	// The next instance of a name has the orphans of its predecessor at once, whatever the lease.
	begin[*oncekey.Claim](t, one, "held", "b")
	successor := named("pod-1")
	orphans, err := successor.Orphans()
	ok(t, err)
	if len(orphans) != 1 || orphans[0].Key.Key != "held" {
		t.Fatalf("%+v", orphans)
	}
	_, err = orphans[0].Complete(ctx, []byte("found out"))
	ok(t, err)
	stats, err := other.Stats()
	if err != nil || stats.Replayed != 1 || stats.Locked != 1 {
		t.Fatalf("%+v %v", stats, err)
	}
	ok(t, other.Fold())
	_, err = other.Sweep()
	ok(t, err)
	is(t, other.Backup(t.TempDir()), oncekey.ErrUnsupported)
	is(t, oncekey.Verify(url), oncekey.ErrUnsupported)
	ok(t, other.Reopen())
}

func TestGarbageEnginesAreClosed(t *testing.T) {
	teststore.OfDirectories(t)
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
