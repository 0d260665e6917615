package oncekey

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
	"unsafe"

	"github.com/oncekey/oncekey/engine-ffi/go/internal/teststore"
)

// sourced opens an engine whose completions come from somewhere else.
func sourced(t *testing.T, poll source) *Engine {
	t.Helper()
	engine, err := Open(teststore.New(t), &Options{SegmentBytes: teststore.SegmentBytes()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { engine.Close() })
	engine.core.queue.shut()
	if engine.core.queue, err = newQueue(engine.core.handle, poll); err != nil {
		t.Fatal(err)
	}
	return engine
}

// answered fails the test if a call does not end.
func answered(t *testing.T, call func() error) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- call() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(time.Minute):
		t.Fatal("a caller waits for ever")
		return nil
	}
}

func (e *Engine) beginNamed(name string) error {
	_, err := e.Begin(context.Background(), Key{Key: name}, Fingerprint{}.Part("body", "b"))
	return err
}

func TestEveryCallerIsAnsweredWhateverPollingSays(t *testing.T) {
	for _, status := range []Kind{77, -1, 4711, ErrPanic, ErrEnded, ErrClosed, ErrForked, ErrUnknown} {
		fail := make(chan bool)
		engine := sourced(t, func(*queue, []completion) (int, Kind) {
			<-fail
			return 0, status
		})
		ended := make(chan error, 20)
		for i := range cap(ended) {
			go func() { ended <- engine.beginNamed(fmt.Sprint(i)) }()
		}
		for {
			engine.core.queue.mu.Lock()
			live := engine.core.queue.live
			engine.core.queue.mu.Unlock()
			if live == cap(ended) {
				break
			}
			time.Sleep(time.Millisecond)
		}
		close(fail)
		for range cap(ended) {
			if err := answered(t, func() error { return <-ended }); !errors.Is(err, ErrOutcomeUnknown) {
				t.Fatal(status, err)
			}
		}
		if err := answered(t, func() error { return engine.beginNamed("later") }); !errors.Is(err, ErrUnavailable) {
			t.Fatal(status, err)
		}
		answered(t, engine.Close)
		if err := answered(t, func() error { return engine.beginNamed("closed") }); !errors.Is(err, ErrClosed) {
			t.Fatal(status, err)
		}
	}
}

func TestAClaimOutlivesAQueueThatFailed(t *testing.T) {
	fail := make(chan bool, 1)
	engine := sourced(t, func(q *queue, into []completion) (int, Kind) {
		select {
		case <-fail:
			return 0, 77
		default:
			return pollC(q, into)
		}
	})
	found, err := engine.Begin(context.Background(), Key{Key: "k"}, Fingerprint{}.Part("body", "b"))
	if err != nil {
		t.Fatal(err)
	}
	claim := found.(*Claim)
	fail <- true
	for !errors.Is(answered(t, func() error { return engine.beginNamed("other") }), ErrUnavailable) {
	}
	if _, err := claim.Complete(context.Background(), nil); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	claim.Close()
	// The claim is dropped in the background.
	orphaned := answered(t, func() error {
		for {
			found, err := engine.Get(Key{Key: "k"})
			if _, flying := found.(*InFlight); err != nil || !flying {
				if _, orphan := found.(*Orphan); !orphan {
					return fmt.Errorf("%T %w", found, err)
				}
				return nil
			}
		}
	})
	if orphaned != nil {
		t.Fatal(orphaned)
	}
}

func TestCompletionsOfNoCallAreGivenBack(t *testing.T) {
	engine := sourced(t, func(q *queue, into []completion) (int, Kind) {
		// Each completion comes twice, and some belong to no call.
		real := make([]completion, 1)
		count, status := pollC(q, real)
		if status != 0 || count == 0 {
			return 0, status
		}
		again := completion{user_data: real[0].user_data}
		into[0], into[1], into[2], into[3] = real[0], again, completion{user_data: 1 << 63}, completion{user_data: 99}
		return 4, 0
	})
	for i := range 10 {
		if err := answered(t, func() error { return engine.beginNamed(fmt.Sprint(i)) }); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnknownStatusesAndOutcomesAreTypedErrors(t *testing.T) {
	for _, values := range []struct{ status, outcome int32 }{{77, 0}, {-5, 0}, {0, 4711}, {0, -1}, {0, 0}} {
		engine := sourced(t, func(q *queue, into []completion) (int, Kind) {
			count, status := pollC(q, into)
			for i := range into[:count] {
				*(*int32)(unsafe.Pointer(&into[i].status)) = values.status
				*(*int32)(unsafe.Pointer(&into[i].answer.outcome)) = values.outcome
			}
			return count, status
		})
		err := answered(t, func() error { return engine.beginNamed("k") })
		if !errors.Is(err, ErrUnknown) {
			t.Fatal(values, err)
		}
	}
}
