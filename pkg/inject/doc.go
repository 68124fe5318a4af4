// Package inject owns turning sets into files: it merges what a [Source]
// delivers, decides which content each file has, publishes the files as one,
// and reports what became of it. It does not know how sets are transported,
// how a file is written (package fileset does), or who runs it.
//
// # What decides a file
//
// Each [Item] of the set wants one file.
//
//   - An item whose value was delivered gets that content.
//   - An item that is FAILED, or lacks a content, keeps its last good one, and
//     holds back nobody else. What a restart finds on the disk counts as last
//     good.
//   - Items of one group of one injection change together: as long as one of
//     them cannot, all stay as they are on the disk.
//   - An item that is gone from the set loses its file at once, whatever its
//     group does: taking a value away must not wait for another value.
//   - A path, mode or owner that cannot be is refused here, whatever the server
//     says; of two paths that overlap the item with the lower id is kept.
//   - The first start of an empty root writes nothing until every item that is
//     not refused has a content. After a restart the files are there already,
//     and nothing waits.
//
// An [Engine] is ready once it has published a set in which every item has a
// content, and stays ready. What it cannot publish, it reports, and tries again
// with a growing delay; the set from before stays.
//
// Contents are kept on the disk, not in memory: an item that waits for its group
// or for the disk is the exception.
package inject
