package oncekey_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
)

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
	if len(orphans) != 1 || orphans[0].Key != named("k") {
		t.Fatalf("%+v", orphans)
	}
	if saved, err := orphans[0].Checkpoint(); err != nil || string(saved) != "half way" {
		t.Fatal(saved, err)
	}
	if orphans[0].Attempt != 2 {
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

func TestGarbageClaimsAreOrphans(t *testing.T) {
	engine := open(t)
	begin[*oncekey.Claim](t, engine, "k", "b")
	waitFor(t, engine, func(stats oncekey.Stats) bool {
		runtime.GC()
		return stats.Abandoned == 1
	})
	begin[*oncekey.Orphan](t, engine, "k", "b")
}
