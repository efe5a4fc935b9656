"""The pyfuse3 adapter of a mount whose branch folders can be written.

Numbers of branch folders go to their workspaces, all others to the read-only adapter.
"""

# ruff: noqa: ARG002  (the signatures are those of pyfuse3)

from __future__ import annotations

import stat as modes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, StatvfsData

from versionfs.fuse.branch_requests import BranchRequests
from versionfs.fuse.operations import Operations, handler
from versionfs.tree import joined
from versionfs.vfs import DAY_SECONDS, ENOATTR, NAME_MAX, FileSystem
from versionfs.workspace import Stat

if TYPE_CHECKING:
    from pyfuse3 import ReaddirToken, RequestContext, SetattrFields


class WritableOperations(BranchRequests, Operations):
    """Serves a mount that can be written."""

    def __init__(self, filesystem: FileSystem) -> None:
        Operations.__init__(self, filesystem)
        BranchRequests.__init__(self, filesystem)

    def _shown(self, stat: Stat) -> EntryAttributes:
        entry = self._entry
        (
            entry.st_ino,
            entry.st_mode,
            entry.st_nlink,
            entry.st_uid,
            entry.st_gid,
            entry.st_rdev,
            entry.st_size,
            entry.st_blocks,
            entry.st_atime_ns,
            entry.st_mtime_ns,
            entry.st_ctime_ns,
        ) = stat
        entry.entry_timeout = entry.attr_timeout = DAY_SECONDS
        return entry

    # -- names -----------------------------------------------------------------------------------

    @handler("lookup")
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Answers what a name in a directory is."""
        if not self._branches.has(parent_inode):
            return await self._lookup(parent_inode, name)
        found = self.lookup_now(parent_inode, name)
        if found is not None:
            return self._shown(found)
        entry = self._entry
        entry.st_ino = 0
        entry.entry_timeout = DAY_SECONDS
        return entry

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Takes lookups from inodes."""
        await super().forget(self.forget_now(inode_list))

    @handler("mknod")
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        """Makes a file, fifo, socket or device."""
        return self._shown(self.make_now(parent_inode, name, mode, ctx.uid, ctx.gid, rdev=rdev))

    @handler("mkdir")
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext
    ) -> EntryAttributes:
        """Makes a directory."""
        mode = modes.S_IFDIR | mode & 0o7777
        return self._shown(self.make_now(parent_inode, name, mode, ctx.uid, ctx.gid))

    @handler("symlink")
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        """Makes a symlink."""
        mode = modes.S_IFLNK | 0o777
        return self._shown(self.make_now(parent_inode, name, mode, ctx.uid, ctx.gid, target=target))

    @handler("link")
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        """Gives a file another name."""
        return self._shown(self.link_now(inode, new_parent_inode, new_name))

    @handler("unlink")
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Takes a name away."""
        self.unlink_now(parent_inode, name)

    @handler("rmdir")
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Removes a directory."""
        self.rmdir_now(parent_inode, name)

    @handler("rename")
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        """Renames, replaces or exchanges."""
        self.rename_now(parent_inode_old, name_old, parent_inode_new, name_new, flags)

    # -- attributes ------------------------------------------------------------------------------

    @handler("getattr")
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """Answers the attributes of an inode."""
        if not self._branches.has(inode):
            return self._filled(*self._fs.attributes(inode))
        return self._shown(self.getattr_now(inode))

    @handler("setattr")
    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Changes attributes, the size among them."""
        return self._shown(
            self.setattr_now(
                inode,
                mode=attr.st_mode if fields.update_mode else None,
                uid=attr.st_uid if fields.update_uid else None,
                gid=attr.st_gid if fields.update_gid else None,
                size=attr.st_size if fields.update_size else None,
                atime_ns=attr.st_atime_ns if fields.update_atime else None,
                mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            )
        )

    @handler("readlink")
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        """Answers the target of a symlink."""
        if not self._branches.has(inode):
            return self._fs.readlink(inode)
        return self.readlink_now(inode)

    @handler("getxattr")
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """Answers an extended attribute."""
        if not self._branches.has(inode):
            return self._fs.xattr(inode, name)
        value = self.getxattr_now(inode, name)
        if value is None:
            raise FUSEError(ENOATTR)
        return value

    @handler("listxattr")
    async def listxattr(self, inode: int, ctx: RequestContext) -> list[bytes]:
        """Answers the names of the stored extended attributes."""
        if not self._branches.has(inode):
            return self._fs.xattrs(inode)
        return self.listxattr_now(inode)

    @handler("setxattr")
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """Sets an extended attribute."""
        self.setxattr_now(inode, name, value)

    @handler("removexattr")
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        """Removes an extended attribute."""
        self.removexattr_now(inode, name)

    # -- files -----------------------------------------------------------------------------------

    @handler("open")
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Opens a file; the kernel keeps its pages, since it sees every change."""
        if not self._branches.has(inode):
            return FileInfo(fh=self._fs.open(inode, flags), keep_cache=True)
        return FileInfo(fh=self.open_now(inode, flags), keep_cache=True)

    @handler("create")
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Makes a file and opens it."""
        stat = self.create_now(parent_inode, name, mode, ctx.uid, ctx.gid)
        return FileInfo(fh=stat.number, keep_cache=True), self._shown(stat)

    @handler("read")
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Answers bytes of a file."""
        if self._branches.has(fh):
            return joined(self.read_now(fh, off, size))
        return await self._read(fh, off, size)

    @handler("write")
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Writes bytes of a file."""
        return self.write_now(fh, off, buf)

    async def release(self, fh: int) -> None:
        """Closes a file."""
        if self._branches.has(fh):
            self.release_now(fh)
        else:
            await super().release(fh)

    @handler("fsync")
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Makes a file survive a power cut."""
        branch, local = self._of(fh)
        await self._wait(branch.workspace.files.sync(branch.workspace.overlay.changes, local))

    @handler("fsyncdir")
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Makes the names in a directory survive a power cut."""
        if self._branches.has(fh):
            branch, _ = self._branches.listing(fh)
            await self._wait(branch.workspace.sync())

    # -- directories -----------------------------------------------------------------------------

    @handler("opendir")
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        """Opens a directory."""
        if self._branches.has(inode):
            return self.opendir_now(inode)
        await self._prepare(inode, None)
        return self._fs.opendir(inode)

    @handler("readdir")
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """Answers entries of a directory with their attributes, as many as fit."""
        if not self._branches.has(fh):
            await self._readdir(fh, start_id, token)
            return
        items = self.readdir_now(fh, start_id)
        offset = start_id
        try:
            for name, stat, offset in items:
                if not pyfuse3.readdir_reply(token, name, self._shown(stat), offset):
                    break
        except Exception:
            # Entries that the kernel has got cannot be taken back: it asks again for those behind.
            if offset == start_id:
                raise
        finally:
            items.close()

    async def releasedir(self, fh: int) -> None:
        """Closes a directory."""
        if self._branches.has(fh):
            self.releasedir_now(fh)
        else:
            await super().releasedir(fh)

    @handler("statfs")
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Answers the space of the disk that takes changes, and the number of files."""
        space = await self._wait(self._fs.space())
        disk = await self._wait(self._branches.disk())
        data = StatvfsData()
        data.f_bsize = disk.f_bsize
        data.f_frsize = disk.f_frsize
        data.f_blocks, data.f_bfree, data.f_bavail = disk.f_blocks, disk.f_bfree, disk.f_bavail
        data.f_files = space.files + disk.f_ffree
        data.f_ffree = data.f_favail = disk.f_ffree
        data.f_namemax = NAME_MAX
        return data
