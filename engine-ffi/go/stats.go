package oncekey

// #include <oncekey.h>
import "C"

import (
	"time"
	"unsafe"
)

// Stats is a snapshot of counters and gauges. Counters start at 0 when the engine is opened or reopened.
type Stats struct {
	// InFlight: claims whose owner lives. OldestClaim: how long the oldest of them has been held.
	InFlight    uint64
	OldestClaim time.Duration
	// Orphans that are unresolved. The number is approximate.
	Orphans uint64
	// Queued: begins that wait for the disk. Waiters: begins that wait for an owner or another begin of their
	// key.
	Queued, Waiters uint64
	// RecentBytes: memory of records that are not folded yet.
	RecentBytes uint64
	// OpenBytes: bytes of claims in flight and of orphans, checkpoints included.
	OpenBytes uint64
	// FoldedRecords: completed records in the record files. Runs: index files of these.
	FoldedRecords, Runs uint64
	// StoreBytes: bytes of the store file, of the record files and of the journal.
	StoreBytes uint64
	// Backups that are being written, the bytes that they will have copied at their end, and the bytes copied so
	// far.
	Backups, BackupBytes, BackupBytesCopied uint64
	// Full: new claims are refused because space (ErrStoreFull), descriptors (ErrOverloaded) or a new file
	// cannot be had.
	Full bool
	// Begins by their result.
	Claimed, Replayed, Locked, Mismatched, Orphaned uint64
	// Operations completed, claims aborted, and claims dropped without an end.
	Completed, Aborted, Abandoned uint64
	// Orphans taken over and released.
	TakenOver, Released uint64
	// Fenced: late calls refused because of their token. Errors: calls that failed or were refused.
	Fenced, Errors uint64
	// Groups made durable, each with one sync, and changes in them.
	Groups, Entries uint64
	// Folds committed, rows swept, and failures after which the engine refused writes.
	Folds, Swept, Failures uint64
}

// Stats returns a snapshot. It is cheap enough for a frequent scrape.
func (e *Engine) Stats() (Stats, error) {
	var c C.oncekey_stats
	c.size = C.uint32_t(unsafe.Sizeof(c))
	err := e.direct(func(engine C.oncekey_engine, detail *C.oncekey_error) C.int32_t {
		return C.oncekey_engine_stats(engine, &c, detail)
	})
	return Stats{
		InFlight:          uint64(c.in_flight),
		OldestClaim:       time.Duration(c.oldest_claim_ms) * time.Millisecond,
		Orphans:           uint64(c.orphans),
		Queued:            uint64(c.queued),
		Waiters:           uint64(c.waiters),
		RecentBytes:       uint64(c.recent_bytes),
		OpenBytes:         uint64(c.open_bytes),
		Backups:           uint64(c.backups),
		BackupBytes:       uint64(c.backup_bytes),
		BackupBytesCopied: uint64(c.backup_bytes_copied),
		FoldedRecords:     uint64(c.folded_records),
		Runs:              uint64(c.runs),
		StoreBytes:        uint64(c.store_bytes),
		Full:              c.full != 0,
		Claimed:           uint64(c.claimed),
		Replayed:          uint64(c.replayed),
		Locked:            uint64(c.locked),
		Mismatched:        uint64(c.mismatched),
		Orphaned:          uint64(c.orphaned),
		Completed:         uint64(c.completed),
		Aborted:           uint64(c.aborted),
		Abandoned:         uint64(c.abandoned),
		TakenOver:         uint64(c.taken_over),
		Released:          uint64(c.released),
		Fenced:            uint64(c.fenced),
		Errors:            uint64(c.errors),
		Groups:            uint64(c.groups),
		Entries:           uint64(c.entries),
		Folds:             uint64(c.folds),
		Swept:             uint64(c.swept),
		Failures:          uint64(c.failures),
	}, err
}
