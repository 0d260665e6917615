//go:build cgo

package oncekey

import (
	"context"
	"errors"
)

// Outcome is the result of [Engine.Do]: [*Executed], [*Recorded], [*InFlight], [*Mismatch] or [*Orphan].
type Outcome interface {
	isOutcome()
}

func (*Executed) isOutcome() {}
func (*Recorded) isOutcome() {}
func (*InFlight) isOutcome() {}
func (*Mismatch) isOutcome() {}
func (*Orphan) isOutcome()   {}

// Executed is an operation that this call executed.
type Executed struct {
	// Response that the function returned.
	Response []byte
	// Kept is false when the response was longer than MaxResponse, or when it could not be recorded.
	Kept bool
	// Token of the claim under which the operation was executed.
	Token Token
}

// Do runs an operation under a key: once, however often it is called with the same key and fingerprint. The
// first call gets [*Executed], and each later call gets [*Recorded] with the same response. [*InFlight],
// [*Mismatch] and [*Orphan] say why the operation is not run. Do never runs an orphan again; the caller
// resolves it or closes it.
//
//	outcome, err := engine.Do(ctx, key, fingerprint, func(ctx context.Context) ([]byte, error) {
//		return charge(ctx, card)
//	})
//
// When run returns an error, Do returns that error, and the outcome of the operation is unknown: its key
// becomes an orphan. The same holds when run panics; the panic continues. If [NotExecuted] made the error,
// nothing happened, and the key is free again.
//
// ctx ends the wait for the claim, and is passed to run. A claim that comes too late is aborted, and run is
// not called. After run has returned, its response is recorded even if ctx has ended. If it cannot be
// recorded, the outcome is Executed together with an error: the operation was run, and after a reopen of the
// engine its key is an orphan or completed.
func (e *Engine) Do(ctx context.Context, key Key, fingerprint Fingerprint, run func(context.Context) ([]byte, error)) (Outcome, error) {
	found, err := e.Begin(ctx, key, fingerprint)
	if err != nil {
		return nil, err
	}
	claim, claimed := found.(*Claim)
	if !claimed {
		// Every other result of a begin is an Outcome.
		return found.(Outcome), nil
	}
	// Closing an ended claim changes nothing. After an error or a panic of run, closing makes it an orphan.
	defer claim.Close()
	response, err := run(ctx)
	ending := context.WithoutCancel(ctx)
	var nothing *notExecuted
	if errors.As(err, &nothing) {
		return nil, errors.Join(err, claim.Abort(ending))
	}
	if err != nil {
		return nil, err
	}
	kept, err := claim.Complete(ending, response)
	return &Executed{Response: response, Kept: kept, Token: claim.Token}, err
}

type notExecuted struct {
	cause error
}

func (n *notExecuted) Error() string { return n.cause.Error() }
func (n *notExecuted) Unwrap() error { return n.cause }

// NotExecuted marks an error that the function of [Engine.Do] returns: the operation had no effect, and its
// key is free for the next call. [errors.Is] and [errors.As] find cause.
func NotExecuted(cause error) error {
	return &notExecuted{cause}
}
