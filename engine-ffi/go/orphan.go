package oncekey

// #include <oncekey.h>
import "C"

import (
	"context"
	"runtime"
	"time"
)

// Orphan is an operation whose owner is gone without saying how it ended: its outcome is unknown. It is
// resolved by [Orphan.TakeOver], [Orphan.Complete] or [Orphan.Release]. It stands for the attempt that it
// saw: once another caller resolved that one, everything here is ErrFenced. Closing it changes nothing.
type Orphan struct {
	// Key of the operation.
	Key Key
	// Attempt that died, from 1.
	Attempt int
	// Token of the attempt that died.
	Token Token
	// Since when the operation is an orphan, in engine time.
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

// orphanOf asks C what an orphan is about.
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

// Checkpoint is the last one that any attempt saved, read from the store when it is asked for; nil when
// there is none. After ErrCorrupted, when it is damaged, the orphan can be resolved all the same.
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

// TakeOver claims the operation: a new token, one attempt more, the last checkpoint. The one who takes over
// executes what may have happened before: at least once, not exactly once.
//
// After ErrFenced and ErrAlreadyCompleted the orphan was resolved otherwise; after any other error of
// the engine it can be tried again. When the context ends first, a claim that was won is aborted.
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

// Complete ends the operation with a response, for a caller who found out that it happened.
func (o *Orphan) Complete(ctx context.Context, response []byte) (kept bool, err error) {
	defer runtime.KeepAlive(o)
	c := newCall(C.ONCEKEY_OP_ORPHAN_COMPLETE)
	c.data = response
	result, err := o.held.finish(ctx, c, &c.submission.orphan)
	return result.kept != 0, err
}

// Release frees the key, for a caller who found out that the operation did not happen, or who wants it
// executed again.
func (o *Orphan) Release(ctx context.Context) error {
	defer runtime.KeepAlive(o)
	c := newCall(C.ONCEKEY_OP_RELEASE)
	_, err := o.held.finish(ctx, c, &c.submission.orphan)
	return err
}

// Close drops the handle and changes nothing. It never fails.
func (o *Orphan) Close() error {
	if id, err := o.held.take(); err == nil {
		o.held.cleanup.Stop()
		freeOrphan(C.oncekey_orphan{id: id})
	}
	runtime.KeepAlive(o)
	return nil
}
