package oncekey

// #include <oncekey.h>
import "C"

import (
	"context"
	"runtime"
	"sync"
	"time"
)

// Claim is the exclusive right to execute an operation. [Claim.Complete] or [Claim.Abort] ends it. A claim
// that is closed or garbage-collected without an end becomes an orphan: the operation may have happened, and
// its outcome is unknown. A claim needs no renewal and may be used by any goroutine.
type Claim struct {
	// Key of the operation.
	Key Key
	// Attempt number, from 1. Above 1 an earlier attempt may have taken effect in part.
	Attempt int
	// Token of this attempt.
	Token Token
	// Checkpoint is the last one that an earlier attempt saved; nil when there is none.
	Checkpoint []byte

	held held
}

// held is a claim or orphan of C: its handle, and the cleanup that frees it.
type held struct {
	engine  *Engine
	mu      sync.Mutex
	id      C.uint64_t // 0 after its end, and while a call uses it
	cleanup runtime.Cleanup
}

// take reserves the handle for one call; back returns it.
func (h *held) take() (C.uint64_t, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.id == 0 {
		return 0, &Error{Kind: ErrEnded, Message: "the claim or orphan was ended before, or another call is ending it"}
	}
	id := h.id
	h.id = 0
	return id, nil
}

// handle returns the handle for a call that does not end it.
func (h *held) handle() (C.uint64_t, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.id == 0 {
		return 0, &Error{Kind: ErrEnded, Message: "the claim or orphan was ended before, or another call is ending it"}
	}
	return h.id, nil
}

func (h *held) back(id C.uint64_t) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.id = id
}

// finish submits the end of a handle. The handle is kept only when the engine allows another try.
func (h *held) finish(ctx context.Context, c *call, handle *C.uint64_t) (completion, error) {
	id, err := h.take()
	if err != nil {
		c.free()
		return completion{}, err
	}
	*handle = id
	if accepted, err := h.engine.core.queue.do(ctx, c); err != nil {
		if !accepted {
			h.back(id)
		} else {
			h.cleanup.Stop() // the queue frees it
		}
		return completion{}, err
	}
	result := c.result
	c.free()
	switch result.status {
	case C.ONCEKEY_OK, C.ONCEKEY_FENCED, C.ONCEKEY_ALREADY_COMPLETED:
		h.cleanup.Stop()
	default:
		h.back(id)
	}
	return result, failure(result.status, result.error)
}

func (e *Engine) newClaim(key Key, answer *C.oncekey_answer) *Claim {
	claim := &Claim{
		Key:        key,
		Attempt:    int(answer.attempt),
		Token:      token(answer.token),
		Checkpoint: data(answer),
	}
	claim.held.engine = e
	claim.held.id = answer.claim.id
	claim.held.cleanup = runtime.AddCleanup(claim, freeClaim, answer.claim)
	return claim
}

func freeClaim(claim C.oncekey_claim) {
	C.oncekey_claim_free(claim)
}

// Complete ends the operation with its response, which every identical begin gets until the TTL is over. kept
// is false when the response was longer than MaxResponse; the operation is completed all the same. The
// completion is durable when the error is nil.
//
// After ErrFenced (another caller took over) and ErrAlreadyCompleted the claim is ended. After any other
// error of the engine it is still held, to try again or to close. When the context ends first, the completion
// continues, and the claim cannot be used any more.
func (c *Claim) Complete(ctx context.Context, response []byte) (kept bool, err error) {
	return c.complete(ctx, response, 0, 0)
}

// CompleteFor is Complete with its own TTL instead of the store's. The shortest TTL is 1 ms.
func (c *Claim) CompleteFor(ctx context.Context, response []byte, ttl time.Duration) (kept bool, err error) {
	if ttl < time.Millisecond {
		return false, invalid("the ttl is %s, at least 1 ms is needed", ttl)
	}
	return c.complete(ctx, response, ttl, 0)
}

// CompleteWithoutResponse ends the operation and keeps no response: a later begin gets a [*Recorded] without
// one.
func (c *Claim) CompleteWithoutResponse(ctx context.Context) error {
	_, err := c.complete(ctx, nil, 0, C.ONCEKEY_NO_RESPONSE)
	return err
}

// CompleteWithoutResponseFor is CompleteWithoutResponse with its own TTL instead of the store's.
func (c *Claim) CompleteWithoutResponseFor(ctx context.Context, ttl time.Duration) error {
	if ttl < time.Millisecond {
		return invalid("the ttl is %s, at least 1 ms is needed", ttl)
	}
	_, err := c.complete(ctx, nil, ttl, C.ONCEKEY_NO_RESPONSE)
	return err
}

func (c *Claim) complete(ctx context.Context, response []byte, ttl time.Duration, flags C.uint32_t) (bool, error) {
	defer runtime.KeepAlive(c)
	end := newCall(C.ONCEKEY_OP_COMPLETE)
	end.data = response
	end.submission.flags = flags
	end.submission.ttl_ms = C.uint64_t(ttl.Milliseconds())
	result, err := c.held.finish(ctx, end, &end.submission.claim)
	return result.kept != 0, err
}

// Abort declares that nothing happened in this attempt. The first attempt frees the key. A later attempt
// leaves the operation as the orphan that it took over. When the claim is ended is the same as for Complete.
func (c *Claim) Abort(ctx context.Context) error {
	defer runtime.KeepAlive(c)
	end := newCall(C.ONCEKEY_OP_ABORT)
	_, err := c.held.finish(ctx, end, &end.submission.claim)
	return err
}

// SaveCheckpoint saves a recovery point. If this claim becomes an orphan, its resolver gets the last
// one. The checkpoint is durable when the error is nil.
func (c *Claim) SaveCheckpoint(ctx context.Context, checkpoint []byte) error {
	defer runtime.KeepAlive(c)
	id, err := c.held.take()
	if err != nil {
		return err
	}
	defer c.held.back(id)
	save := newCall(C.ONCEKEY_OP_CHECKPOINT)
	save.data = checkpoint
	save.submission.claim = id
	if _, err := c.held.engine.core.queue.do(ctx, save); err != nil {
		return err
	}
	defer save.free()
	return failure(save.result.status, save.result.error)
}

// Close drops the claim. If it was not ended, the operation becomes an orphan: its outcome is unknown. Close
// does not wait until that is durable. It never fails; it returns an error to be an [io.Closer].
func (c *Claim) Close() error {
	if id, err := c.held.take(); err == nil {
		c.held.cleanup.Stop()
		freeClaim(C.oncekey_claim{id: id})
	}
	runtime.KeepAlive(c)
	return nil
}
