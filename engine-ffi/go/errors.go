package oncekey

// #include <oncekey.h>
import "C"

import "fmt"

// Kind is the kind of a failure, for programs. Every kind is an error that [errors.Is] finds:
//
//	if errors.Is(err, oncekey.ErrFenced) { … }
type Kind int32

// The kinds of errors.
const (
	// ErrInvalidInput: a key, scope, response, checkpoint or option is invalid or outside its limits. Nothing
	// happened.
	ErrInvalidInput Kind = C.ONCEKEY_INVALID_INPUT
	// ErrFenced: the token is not the newest for its key: another caller took over, or the record expired or was
	// freed.
	ErrFenced Kind = C.ONCEKEY_FENCED
	// ErrAlreadyCompleted: the key was already completed, with other bytes or under another token.
	ErrAlreadyCompleted Kind = C.ONCEKEY_ALREADY_COMPLETED
	// ErrOutcomeUnknown: a write or sync failed while the operation was in progress: it may or may not have
	// happened. Reopen decides it.
	ErrOutcomeUnknown Kind = C.ONCEKEY_OUTCOME_UNKNOWN
	// ErrUnavailable: the engine refuses writes after an earlier failure. Reopen recovers in place.
	ErrUnavailable Kind = C.ONCEKEY_UNAVAILABLE
	// ErrOverloaded: a bound was reached. Nothing happened; try again later.
	ErrOverloaded Kind = C.ONCEKEY_OVERLOADED
	// ErrStoreFull: the disk, or the configured store size, is full. Nothing happened.
	ErrStoreFull Kind = C.ONCEKEY_STORE_FULL
	// ErrClosed: the engine was closed.
	ErrClosed Kind = C.ONCEKEY_CLOSED
	// ErrStoreMissing: there is no store, and the options forbid to create one.
	ErrStoreMissing Kind = C.ONCEKEY_STORE_MISSING
	// ErrStoreInUse: another process, or another engine of this process, holds the store.
	ErrStoreInUse Kind = C.ONCEKEY_STORE_IN_USE
	// ErrStoreEmpty: the store file has no bytes. It was left untouched.
	ErrStoreEmpty Kind = C.ONCEKEY_STORE_EMPTY
	// ErrStoreTruncated: the store file is shorter than its durable part once was. It was left untouched.
	ErrStoreTruncated Kind = C.ONCEKEY_STORE_TRUNCATED
	// ErrStoreForeign: the directory or file is not a oncekey store. It was left untouched.
	ErrStoreForeign Kind = C.ONCEKEY_STORE_FOREIGN
	// ErrStoreNewerFormat: the store was written by a newer version of oncekey. It was left untouched.
	ErrStoreNewerFormat Kind = C.ONCEKEY_STORE_NEWER_FORMAT
	// ErrStoreUnreadable: the store cannot be read or written with the rights of this process.
	ErrStoreUnreadable Kind = C.ONCEKEY_STORE_UNREADABLE
	// ErrNetworkFilesystem: the store lies on a network filesystem, whose locks and syncs cannot be trusted.
	ErrNetworkFilesystem Kind = C.ONCEKEY_NETWORK_FILESYSTEM
	// ErrCorrupted: stored bytes fail their checksum, or something that must exist is missing.
	ErrCorrupted Kind = C.ONCEKEY_CORRUPTED
	// ErrClockJump: the wall clock is further ahead of the store's last time than the limit allows.
	ErrClockJump Kind = C.ONCEKEY_CLOCK_JUMP
	// ErrIO: the operating system reported an error that no other kind describes.
	ErrIO Kind = C.ONCEKEY_IO
	// ErrUnsafeStore: the settings of a shared server cannot keep the promises of the engine. Nothing was
	// written.
	ErrUnsafeStore Kind = C.ONCEKEY_UNSAFE_STORE
	// ErrHistoryLost: a shared server lacks changes that it had acknowledged. The engine grants nothing until
	// the loss is accepted with AcceptLostHistory.
	ErrHistoryLost Kind = C.ONCEKEY_HISTORY_LOST
	// ErrUnsupported: this kind of store does not have the requested function.
	ErrUnsupported Kind = C.ONCEKEY_UNSUPPORTED
	// ErrEnded: the claim or orphan was ended before, or another call is ending it.
	ErrEnded Kind = C.ONCEKEY_INVALID_HANDLE
	// ErrForked: this process was forked from one that had opened an engine.
	ErrForked Kind = C.ONCEKEY_FORKED
	// ErrPanic: a bug in the library was contained. The work of the call may or may not have happened.
	ErrPanic Kind = C.ONCEKEY_PANIC
	// ErrUnknown: the library answered with a status or outcome that this package does not know. The work of the
	// call may or may not have happened.
	ErrUnknown Kind = C.ONCEKEY_UNKNOWN_ERROR
)

var kinds = map[Kind]bool{
	ErrInvalidInput: true, ErrFenced: true, ErrAlreadyCompleted: true, ErrOutcomeUnknown: true,
	ErrUnavailable: true, ErrOverloaded: true, ErrStoreFull: true, ErrClosed: true, ErrStoreMissing: true,
	ErrStoreInUse: true, ErrStoreEmpty: true, ErrStoreTruncated: true, ErrStoreForeign: true,
	ErrStoreNewerFormat: true, ErrStoreUnreadable: true, ErrNetworkFilesystem: true, ErrCorrupted: true,
	ErrClockJump: true, ErrIO: true, ErrUnsafeStore: true, ErrHistoryLost: true, ErrUnsupported: true, ErrEnded: true, ErrForked: true, ErrPanic: true, ErrUnknown: true,
}

func (k Kind) name() string {
	return C.GoString(C.oncekey_status_name(C.int32_t(k)))
}

// Error returns the name of the kind.
func (k Kind) Error() string {
	return "oncekey: " + k.name()
}

// Error is a failure: its Kind for programs, its Message for people. [errors.As] finds it, and
// [errors.Is] its Kind.
type Error struct {
	Kind    Kind
	Message string
}

func (e *Error) Error() string {
	if e.Message == "" {
		return e.Kind.Error()
	}
	return "oncekey: " + e.Message
}

// Is makes errors.Is(err, oncekey.ErrFenced) work.
func (e *Error) Is(target error) bool {
	kind, ok := target.(Kind)
	return ok && kind == e.Kind
}

// failure converts a status to an error, and frees the error handle that came with it.
func failure(status C.int32_t, detail C.oncekey_error) error {
	if status == C.ONCEKEY_OK {
		return nil
	}
	kind := Kind(status)
	if status == C.ONCEKEY_BUSY {
		kind = ErrEnded
	}
	failed := &Error{Kind: kind}
	if !kinds[kind] {
		failed = unknown("status", int32(status))
	}
	if detail.id != 0 {
		failed.Message = C.GoString(C.oncekey_error_message(detail))
		C.oncekey_error_free(detail)
	}
	return failed
}

func unknown(what string, value int32) *Error {
	return &Error{Kind: ErrUnknown, Message: fmt.Sprintf("the library answered with the %s %d, which this package does not know", what, value)}
}

func invalid(format string, values ...any) error {
	return &Error{Kind: ErrInvalidInput, Message: "invalid input: " + fmt.Sprintf(format, values...)}
}
