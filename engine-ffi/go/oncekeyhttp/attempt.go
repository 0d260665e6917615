package oncekeyhttp

import (
	"context"
	"sync"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
)

// Attempt is the execution that a request is part of.
type Attempt struct {
	// Number, from 1. Above 1, which only [Retry] brings about, the attempts before it may have happened in
	// part.
	Number int
	// Token is the fencing token of this execution, to hand to systems downstream.
	Token oncekey.Token
	// Checkpoint is the last one that an attempt before this one saved; nil when there is none.
	Checkpoint []byte

	claim *oncekey.Claim

	mu          sync.Mutex
	notExecuted bool
	notStored   bool
}

type contextKey struct{}

// FromContext returns the attempt of a request that runs under an idempotency key; nil for others.
func FromContext(ctx context.Context) *Attempt {
	attempt, _ := ctx.Value(contextKey{}).(*Attempt)
	return attempt
}

// SaveCheckpoint saves a recovery point: when this attempt dies, the one who takes over gets the last one. It
// is durable when the error is nil; oncekey.ErrEnded when the handler has answered already.
func (a *Attempt) SaveCheckpoint(ctx context.Context, checkpoint []byte) error {
	return a.claim.SaveCheckpoint(ctx, checkpoint)
}

// NotExecuted says that nothing happened: the key is freed, and the next request with it runs the handler.
// To be called before the first byte of a response that is sent as it comes. Only the first attempt can
// free a key; a later one cannot vouch for those before it.
func (a *Attempt) NotExecuted() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notExecuted = true
}

// NotStored says that the response is not to be stored: it is sent as it comes, and a retry is told
// idempotency_response_not_stored. For streams; to be called before the first byte.
func (a *Attempt) NotStored() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notStored = true
}

func (a *Attempt) said() (notExecuted, notStored bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.notExecuted, a.notStored
}
