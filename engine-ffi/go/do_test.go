package oncekey_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"runtime"
	"sync/atomic"
	"testing"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
)

// do runs an operation whose runs it counts.
func do(t *testing.T, engine *oncekey.Engine, name string, run func(context.Context) ([]byte, error)) (oncekey.Outcome, error) {
	t.Helper()
	return engine.Do(ctx, named(name), body("b"), run)
}

func outcome[T oncekey.Outcome](t *testing.T, found oncekey.Outcome, err error) T {
	t.Helper()
	ok(t, err)
	wanted, is := found.(T)
	if !is {
		t.Fatalf("found %T, not %T", found, wanted)
	}
	return wanted
}

func never(context.Context) ([]byte, error) { panic("it ran again") }

func TestDoHasFiveOutcomes(t *testing.T) {
	engine := open(t)
	first, err := do(t, engine, "k", func(context.Context) ([]byte, error) {
		running, err := do(t, engine, "k", never)
		outcome[*oncekey.InFlight](t, running, err)
		return []byte("done"), nil
	})
	executed := outcome[*oncekey.Executed](t, first, err)
	if string(executed.Response) != "done" || !executed.Kept || executed.Token == (oncekey.Token{}) {
		t.Fatalf("%+v", executed)
	}
	again, err := do(t, engine, "k", never)
	if recorded := outcome[*oncekey.Recorded](t, again, err); string(recorded.Response) != "done" || recorded.Token != executed.Token {
		t.Fatalf("%+v", recorded)
	}
	other, err := engine.Do(ctx, named("k"), body("other"), never)
	outcome[*oncekey.Mismatch](t, other, err)
	begin[*oncekey.Claim](t, engine, "left", "b").Close()
	left, err := do(t, engine, "left", never)
	outcome[*oncekey.Orphan](t, left, err).Close()
}

func TestAnErrorOfDoLeavesTheOutcomeUnknown(t *testing.T) {
	engine := open(t)
	lost := errors.New("the link broke")
	if found, err := do(t, engine, "k", func(context.Context) ([]byte, error) { return nil, lost }); found != nil || err != lost {
		t.Fatal(found, err)
	}
	found, err := do(t, engine, "k", never)
	outcome[*oncekey.Orphan](t, found, err).Close()
}

func TestNotExecutedFreesTheKey(t *testing.T) {
	engine := open(t)
	closed := errors.New("the kitchen is closed")
	found, err := do(t, engine, "k", func(context.Context) ([]byte, error) {
		return nil, fmt.Errorf("order: %w", oncekey.NotExecuted(closed))
	})
	if found != nil || !errors.Is(err, closed) || err.Error() != "order: the kitchen is closed" {
		t.Fatal(found, err)
	}
	later, err := do(t, engine, "k", func(context.Context) ([]byte, error) { return nil, nil })
	outcome[*oncekey.Executed](t, later, err)
	empty, err := do(t, engine, "k", never)
	if recorded := outcome[*oncekey.Recorded](t, empty, err); recorded.Response == nil {
		t.Fatal("an empty response is one")
	}
}

func TestAPanicInDoLeavesTheOutcomeUnknownAndGoesOn(t *testing.T) {
	engine := open(t)
	func() {
		defer func() {
			if said := recover(); said != "died" {
				t.Fatal(said)
			}
		}()
		do(t, engine, "panics", func(context.Context) ([]byte, error) { panic("died") })
	}()
	gone := make(chan bool)
	go func() {
		defer close(gone)
		do(t, engine, "exits", func(context.Context) ([]byte, error) { runtime.Goexit(); return nil, nil })
	}()
	<-gone
	for _, name := range []string{"panics", "exits"} {
		found, err := do(t, engine, name, never)
		outcome[*oncekey.Orphan](t, found, err).Close()
	}
}

func TestAContextThatEndsBeforeDoRunsNothing(t *testing.T) {
	engine := open(t)
	ended, end := context.WithCancel(ctx)
	end()
	if found, err := engine.Do(ended, named("k"), body("b"), never); found != nil || !errors.Is(err, context.Canceled) {
		t.Fatal(found, err)
	}
	found, err := do(t, engine, "k", func(context.Context) ([]byte, error) { return nil, nil })
	outcome[*oncekey.Executed](t, found, err)
}

func TestAResponseIsRecordedAfterTheContextEnded(t *testing.T) {
	engine := open(t)
	leaving, leave := context.WithCancel(ctx)
	found, err := engine.Do(leaving, named("k"), body("b"), func(ctx context.Context) ([]byte, error) {
		leave()
		if ctx.Err() == nil {
			t.Error("the function does not see its caller leave")
		}
		return []byte("for the retry"), nil
	})
	outcome[*oncekey.Executed](t, found, err)
	again, err := do(t, engine, "k", never)
	if recorded := outcome[*oncekey.Recorded](t, again, err); string(recorded.Response) != "for the retry" {
		t.Fatalf("%s", recorded.Response)
	}
}

func TestAResponseOfDoThatCannotBeRecordedIsNotLost(t *testing.T) {
	engine := open(t)
	found, err := do(t, engine, "k", func(context.Context) ([]byte, error) {
		ok(t, engine.Close())
		return []byte("charged"), nil
	})
	is(t, err, oncekey.ErrClosed)
	if executed, ok := found.(*oncekey.Executed); !ok || string(executed.Response) != "charged" || executed.Kept {
		t.Fatalf("%+v", found)
	}
}

func TestManyCallsOfDoRunOnce(t *testing.T) {
	engine := open(t)
	var runs atomic.Int32
	done := make(chan error)
	for range 100 {
		go func() {
			for {
				found, err := do(t, engine, "k", func(context.Context) ([]byte, error) {
					runs.Add(1)
					return []byte("once"), nil
				})
				if _, running := found.(*oncekey.InFlight); !running {
					done <- err
					return
				}
			}
		}()
	}
	for range 100 {
		ok(t, <-done)
	}
	if runs.Load() != 1 {
		t.Fatal(runs.Load())
	}
}

func ExampleEngine_Do() {
	directory, err := os.MkdirTemp("", "oncekey-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(directory)
	engine, err := oncekey.Open(directory, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()

	charges := 0
	key := oncekey.Key{Scope: "tenant-7", Key: "order-4711"}
	request := oncekey.Fingerprint{}.Part("body", "2 apples")
	for range 2 {
		outcome, err := engine.Do(context.Background(), key, request, func(context.Context) ([]byte, error) {
			charges++
			return fmt.Appendf(nil, "charge %d", charges), nil
		})
		if err != nil {
			log.Fatal(err)
		}
		switch outcome := outcome.(type) {
		case *oncekey.Executed:
			fmt.Printf("executed: %s\n", outcome.Response)
		case *oncekey.Recorded:
			fmt.Printf("again: %s\n", outcome.Response)
		case *oncekey.InFlight:
			fmt.Println("being executed, retry in", outcome.RetryAfter)
		case *oncekey.Mismatch:
			fmt.Println("another request:", outcome.Parts, "differ")
		case *oncekey.Orphan:
			fmt.Println("attempt", outcome.Attempt, "died, outcome unknown")
		}
	}
	// Output:
	// executed: charge 1
	// again: charge 1
}
