package oncekey

// #include <oncekey.h>
import "C"

import (
	"context"
	"runtime"
	"time"
)

// Orphan is an operation whose owner ended with an unknown outcome. [Orphan.TakeOver], [Orphan.Complete] or
// [Orphan.Release] resolves it. It stands for the attempt that it saw: after another caller has resolved that
// attempt, every method returns ErrFenced. Closing it changes nothing.
type Orphan struct {
	// Key of the operation.
	Key Key
	// Attempt number of the attempt that died, from 1.
	Attempt int
	// Token of the attempt that died.
	Token Token
	// Since is the time when the operation became an orphan, in engine time.
	Since time.Time

	held held
}

func (e *Engine) newOrphan(key Key, handle C.oncekey_orphan, attempt int, token Token, since time.Time) *Orphan {
	orphan := &Orphan{Key: key, Attempt: attempt, Token: token, Since: since}
	orphan.held.engine = e
	orphan.held.id = handle.id
	orphan.held.cleanup = runtime.AddCleanup(orphan, freeOrphan, handle)
	return orphan
}

// orphanOf asks C for the description of an orphan.
func (e *Engine) orphanOf(handle C.oncekey_orphan) (*Orphan, error) {
	var info C.oncekey_info
	var detail C.oncekey_error
	if err := failure(C.oncekey_orphan_info(handle, &info, &detail), detail); err != nil {
		return nil, err
	}
	defer C.oncekey_buffer_free(&info.data)
	key := Key{
		Scope: string(copied(info.scope.ptr, info.scope.len)),
		Key:   string(copied(info.key.ptr, info.key.len)),
	}
	return e.newOrphan(key, handle, int(info.attempt), token(info.token), unixMilli(info.since_ms)), nil
}

// Checkpoint reads the last checkpoint that any attempt saved from the store; nil when there is none.
// ErrCorrupted means that it is damaged; the orphan can still be resolved.
func (o *Orphan) Checkpoint() ([]byte, error) {
	defer runtime.KeepAlive(o)
	orphan, err := o.held.handle()
	if err != nil {
		return nil, err
	}
	var saved C.oncekey_buffer
	var found C.uint32_t
	var detail C.oncekey_error
	if err := failure(C.oncekey_orphan_checkpoint(C.oncekey_orphan{id: orphan}, &saved, &found, &detail), detail); err != nil {
		return nil, err
	}
	defer C.oncekey_buffer_free(&saved)
	if found == 0 {
		return nil, nil
	}
	return copied(saved.ptr, saved.len), nil
}

func freeOrphan(orphan C.oncekey_orphan) {
	C.oncekey_orphan_free(orphan)
}

// TakeOver claims the operation, with a new token, the next attempt number, and the last checkpoint. The
// operation may have happened already, so a caller that executes now executes it at least once, not exactly
// once.
//
// After ErrFenced and ErrAlreadyCompleted the orphan was resolved elsewhere. After any other error of the
// engine it can be tried again. When the context ends first, a claim that was won is aborted.
func (o *Orphan) TakeOver(ctx context.Context) (*Claim, error) {
	defer runtime.KeepAlive(o)
	c := newCall(C.ONCEKEY_OP_TAKE_OVER)
	result, err := o.held.finish(ctx, c, &c.submission.orphan)
	if err != nil {
		return nil, err
	}
	defer freeData(&result.answer)
	return o.held.engine.newClaim(o.Key, &result.answer), nil
}

// Complete ends the operation with a response, when the caller has found out that it happened.
func (o *Orphan) Complete(ctx context.Context, response []byte) (kept bool, err error) {
	defer runtime.KeepAlive(o)
	c := newCall(C.ONCEKEY_OP_ORPHAN_COMPLETE)
	c.data = response
	result, err := o.held.finish(ctx, c, &c.submission.orphan)
	return result.kept != 0, err
}

// Release frees the key, when the caller has found out that the operation did not happen, or wants it
// executed again.
func (o *Orphan) Release(ctx context.Context) error {
	defer runtime.KeepAlive(o)
	c := newCall(C.ONCEKEY_OP_RELEASE)
	_, err := o.held.finish(ctx, c, &c.submission.orphan)
	return err
}

// Close frees the handle and changes nothing in the store. It never fails.
func (o *Orphan) Close() error {
	if id, err := o.held.take(); err == nil {
		o.held.cleanup.Stop()
		freeOrphan(C.oncekey_orphan{id: id})
	}
	runtime.KeepAlive(o)
	return nil
}
