package oncekey

// #include <oncekey.h>
import "C"

import (
	"context"
	"runtime"
	"sync"
	"time"
	"unsafe"
)

// Key is the identity of an operation: the party that it belongs to, 0 to 255 bytes, and its name, 1 to 255
// bytes.
type Key struct {
	Scope string
	Key   string
}

func (k Key) toC() (C.oncekey_key, *runtime.Pinner) {
	pinner := new(runtime.Pinner)
	return C.oncekey_key{scope: slice(k.Scope, pinner), key: slice(k.Key, pinner)}, pinner
}

// slice lends a string to C until the pinner is unpinned.
func slice(text string, pinner *runtime.Pinner) C.oncekey_slice {
	if text == "" {
		return C.oncekey_slice{}
	}
	data := unsafe.StringData(text)
	pinner.Pin(data)
	return C.oncekey_slice{ptr: (*C.uint8_t)(unsafe.Pointer(data)), len: C.size_t(len(text))}
}

// Engine is an open store. All its methods may be called by any goroutine. An engine that nothing refers to
// any more, its claims and orphans included, is closed.
type Engine struct {
	core *core
}

// core is the part of an engine that goroutines and cleanups hold, so that the engine itself can become
// garbage.
type core struct {
	handle C.oncekey_engine
	queue  *queue
	once   sync.Once
	ended  error
	// using is held for reading by calls that use the handle directly.
	using sync.RWMutex
	gone  bool
}

// Open opens the store in the directory path, and creates it unless the options forbid it. nil means the
// default options. When Open returns, every record that was ever acknowledged is available again, and every
// claim of an earlier process is an orphan.
//
// With a library that was built with the feature postgres, path may be the URL of a database that any number
// of processes share, postgres://user@host/database. Its tables are created unless the options forbid it. The
// claims of a process that died become orphans one lease after its death. Other libraries return
// [ErrUnsupported].
func Open(path string, options *Options) (*Engine, error) {
	var pinner runtime.Pinner
	defer pinner.Unpin()
	c, err := options.toC(&pinner)
	if err != nil {
		return nil, err
	}
	var detail C.oncekey_error
	var handle C.oncekey_engine
	status := C.oncekey_engine_open(slice(path, &pinner), &c, &handle, &detail)
	if err := failure(status, detail); err != nil {
		return nil, err
	}
	queue, err := newQueue(handle, pollC)
	if err != nil {
		C.oncekey_engine_free(handle)
		return nil, err
	}
	engine := &Engine{&core{handle: handle, queue: queue}}
	// Closing waits for the disk, so it must not run on the goroutine that runs all cleanups.
	runtime.AddCleanup(engine, func(c *core) { go c.close() }, engine.core)
	return engine, nil
}

// Verify reads the whole store in the directory path, which no engine may have open, and checks every
// checksum. It writes nothing.
func Verify(path string) error {
	var pinner runtime.Pinner
	defer pinner.Unpin()
	var detail C.oncekey_error
	return failure(C.oncekey_verify(slice(path, &pinner), &detail), detail)
}

// Begin requests the right to execute the operation that key names. It returns a [*Claim], [*Recorded],
// [*InFlight], [*Mismatch] or [*Orphan]. After an error the caller must not execute.
//
// When the context ends first, a claim that was won is aborted.
func (e *Engine) Begin(ctx context.Context, key Key, fingerprint Fingerprint) (Begin, error) {
	return e.BeginWaiting(ctx, key, fingerprint, 0)
}

// BeginWaiting is Begin that waits up to maxWait while another caller executes: for its response, its abort
// or its death. After that time the result is [*InFlight]. When the context ends first, the wait ends and
// makes room for other waiting begins (Options.MaxWaiters).
func (e *Engine) BeginWaiting(ctx context.Context, key Key, fingerprint Fingerprint, maxWait time.Duration) (Begin, error) {
	defer runtime.KeepAlive(e)
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := fingerprint.check(); err != nil {
		return nil, err
	}
	c := newCall(C.ONCEKEY_OP_BEGIN)
	c.scope, c.key = key.Scope, key.Key
	if fingerprint.isSmall() {
		c.submission.flags = C.ONCEKEY_FINGERPRINT_PARTS
		c.parts = fingerprint
	} else {
		handle, err := fingerprint.handle()
		if err != nil {
			c.free()
			return nil, err
		}
		c.submission.flags = C.ONCEKEY_FREE_FINGERPRINT
		c.submission.fingerprint = handle.id
	}
	if maxWait > 0 {
		c.submission.max_wait_ms = C.uint64_t(max(maxWait.Milliseconds(), 1))
	}
	if _, err := e.core.queue.do(ctx, c); err != nil {
		return nil, err
	}
	defer c.free()
	if err := failure(c.result.status, c.result.error); err != nil {
		return nil, err
	}
	return e.begin(key, &c.result.answer)
}

// direct runs a call on the handle of the engine.
func (e *Engine) direct(call func(engine C.oncekey_engine, detail *C.oncekey_error) C.int32_t) error {
	defer runtime.KeepAlive(e)
	e.core.using.RLock()
	defer e.core.using.RUnlock()
	if e.core.gone {
		return &Error{Kind: ErrClosed}
	}
	var detail C.oncekey_error
	status := call(e.core.handle, &detail)
	return failure(status, detail)
}

// Get returns the state of a key without requesting the right to execute: [*Recorded], [*InFlight] or
// [*Orphan], or nil when the store has no record of it.
func (e *Engine) Get(key Key) (Begin, error) {
	name, pinner := key.toC()
	defer pinner.Unpin()
	var answer C.oncekey_answer
	err := e.direct(func(engine C.oncekey_engine, detail *C.oncekey_error) C.int32_t {
		return C.oncekey_engine_get(engine, name, &answer, detail)
	})
	if err != nil || answer.outcome == C.ONCEKEY_ABSENT {
		return nil, err
	}
	return e.begin(key, &answer)
}

// Orphans returns the unresolved orphans, oldest first.
func (e *Engine) Orphans() ([]*Orphan, error) {
	handles := make([]C.oncekey_orphan, 64)
	for {
		var count C.size_t
		err := e.direct(func(engine C.oncekey_engine, detail *C.oncekey_error) C.int32_t {
			return C.oncekey_engine_orphans(engine, &handles[0], C.size_t(len(handles)), &count, detail)
		})
		if err != nil {
			return nil, err
		}
		if int(count) <= len(handles) {
			handles = handles[:count]
			break
		}
		for _, handle := range handles {
			C.oncekey_orphan_free(handle)
		}
		handles = make([]C.oncekey_orphan, int(count)+64)
	}
	orphans := make([]*Orphan, 0, len(handles))
	var failed error
	for _, handle := range handles {
		orphan, err := e.orphanOf(handle)
		if err != nil {
			failed = err
			C.oncekey_orphan_free(handle)
			continue
		}
		orphans = append(orphans, orphan)
	}
	return orphans, failed
}

// Fold moves everything acknowledged so far from the journal into the store files. Never needed for
// durability.
func (e *Engine) Fold() error {
	return e.direct(func(engine C.oncekey_engine, detail *C.oncekey_error) C.int32_t {
		return C.oncekey_engine_fold(engine, detail)
	})
}

// Sweep frees the space of expired records now, and returns the number of removed rows. Never needed for
// correctness.
func (e *Engine) Sweep() (uint64, error) {
	var removed C.uint64_t
	err := e.direct(func(engine C.oncekey_engine, detail *C.oncekey_error) C.int32_t {
		return C.oncekey_engine_sweep(engine, &removed, detail)
	})
	return uint64(removed), err
}

// Backup writes a consistent copy of the store into the new or empty directory path, while the engine runs.
// It returns when the copy is complete.
func (e *Engine) Backup(path string) error {
	var pinner runtime.Pinner
	defer pinner.Unpin()
	to := slice(path, &pinner)
	return e.direct(func(engine C.oncekey_engine, detail *C.oncekey_error) C.int32_t {
		return C.oncekey_engine_backup(engine, to, detail)
	})
}

// Reopen recovers in place after a failure, as a restart of the process would. Every claim becomes an orphan,
// which its owner may still complete.
func (e *Engine) Reopen() error {
	return e.direct(func(engine C.oncekey_engine, detail *C.oncekey_error) C.int32_t {
		return C.oncekey_engine_reopen(engine, detail)
	})
}

// Close closes the engine: it refuses new calls, makes submitted changes durable, folds, and unlocks the
// store. Claims that are still held are orphans at the next open. Closing again does nothing and returns the
// same error.
func (e *Engine) Close() error {
	defer runtime.KeepAlive(e)
	return e.core.close()
}

func (c *core) close() error {
	c.once.Do(func() {
		var detail C.oncekey_error
		status := C.oncekey_engine_close(c.handle, nil, &detail)
		c.ended = failure(status, detail)
		c.queue.shut()
		c.using.Lock()
		c.gone = true
		c.using.Unlock()
		C.oncekey_engine_free(c.handle)
	})
	return c.ended
}
