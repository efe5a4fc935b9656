"""The pyfuse3 adapter of a mount whose branch folders can be written.

Numbers of branch folders go to their workspaces, all others to the read-only adapter.
"""

# ruff: noqa: ARG002  (the signatures are those of pyfuse3)

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, StatvfsData

from versionfs.fuse.operations import Operations, handler, report
from versionfs.vfs import DAY_SECONDS, ENOATTR, NAME_MAX, Branch, FileSystem, is_expected
from versionfs.workspace import Stat

if TYPE_CHECKING:
    from pyfuse3 import ReaddirToken, RequestContext, SetattrFields

_NAMESPACES: Final = (b"user.", b"trusted.", b"security.")
_OWN: Final = b"user.versionfs."


class WritableOperations(Operations):
    """Serves a mount that can be written."""

    def __init__(self, filesystem: FileSystem) -> None:
        super().__init__(filesystem)
        branches = filesystem.branches
        assert branches is not None
        self._branches = branches

    def _of(self, number: int) -> tuple[Branch, int]:
        """Returns the branch and the local number of a place that is to be changed."""
        if not self._branches.has(number):
            raise FUSEError(errno.EROFS)
        return self._branches.of(number)

    def _stat(self, branch: Branch, stat: Stat) -> EntryAttributes:
        return self._shown(branch.shown(stat))

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
        if len(name) > NAME_MAX:
            raise FUSEError(errno.ENAMETOOLONG)
        branch, local = self._branches.of(parent_inode)
        found = branch.workspace.lookup(local, name)
        if found is not None:
            return self._stat(branch, found)
        entry = self._entry
        entry.st_ino = 0
        entry.entry_timeout = DAY_SECONDS
        return entry

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Takes lookups from inodes."""
        others = []
        for number, lookups in inode_list:
            if not self._branches.has(number):
                others.append((number, lookups))
                continue
            try:
                branch, local = self._branches.of(number)
                branch.workspace.forget(local, lookups)
            except Exception as error:  # noqa: BLE001  (pyfuse3 would end the mount)
                report("forget", (number,), error)
        await super().forget(others)

    @handler("mknod")
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        """Makes a file, fifo, socket or device."""
        branch, parent = self._of(parent_inode)
        number = branch.workspace.overlay.make(parent, name, mode, ctx.uid, ctx.gid, rdev=rdev)
        return self._stat(branch, branch.workspace.stat(number))

    @handler("mkdir")
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext
    ) -> EntryAttributes:
        """Makes a directory."""
        branch, parent = self._of(parent_inode)
        mode = modes.S_IFDIR | mode & 0o7777
        number = branch.workspace.overlay.make(parent, name, mode, ctx.uid, ctx.gid)
        return self._stat(branch, branch.workspace.stat(number))

    @handler("symlink")
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        """Makes a symlink."""
        branch, parent = self._of(parent_inode)
        number = branch.workspace.overlay.make(
            parent, name, modes.S_IFLNK | 0o777, ctx.uid, ctx.gid, target=target
        )
        return self._stat(branch, branch.workspace.stat(number))

    @handler("link")
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        """Gives a file another name."""
        branch, parent = self._of(new_parent_inode)
        other, local = self._of(inode)
        if other is not branch:
            raise FUSEError(errno.EXDEV)
        branch.workspace.overlay.link(local, parent, new_name)
        return self._stat(branch, branch.workspace.stat(local))

    @handler("unlink")
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Takes a name away."""
        branch, parent = self._of(parent_inode)
        branch.workspace.overlay.unlink(parent, name)

    @handler("rmdir")
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Removes a directory."""
        branch, parent = self._of(parent_inode)
        branch.workspace.overlay.rmdir(parent, name)

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
        branch, parent = self._of(parent_inode_old)
        other, target = self._of(parent_inode_new)
        if other is not branch:
            raise FUSEError(errno.EXDEV)
        branch.workspace.overlay.rename(parent, name_old, target, name_new, flags)

    # -- attributes ------------------------------------------------------------------------------

    @handler("getattr")
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """Answers the attributes of an inode."""
        if not self._branches.has(inode):
            return self._filled(*self._fs.attributes(inode))
        branch, local = self._branches.of(inode)
        return self._stat(branch, branch.workspace.stat(local))

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
        branch, local = self._of(inode)
        uid = attr.st_uid if fields.update_uid else None
        gid = attr.st_gid if fields.update_gid else None
        if not branch.is_owner_kept and (uid is not None or gid is not None):
            shown = branch.shown(branch.workspace.stat(local))
            if (uid is not None and uid != shown.uid) or (gid is not None and gid != shown.gid):
                raise FUSEError(errno.EPERM)
            uid = gid = None
        branch.workspace.overlay.set_attributes(
            local,
            mode=attr.st_mode & 0o7777 if fields.update_mode else None,
            uid=uid,
            gid=gid,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return self._stat(branch, branch.workspace.stat(local))

    @handler("readlink")
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        """Answers the target of a symlink."""
        if not self._branches.has(inode):
            return self._fs.readlink(inode)
        branch, local = self._branches.of(inode)
        return branch.workspace.readlink(local)

    @handler("getxattr")
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """Answers an extended attribute."""
        if not self._branches.has(inode):
            return self._fs.xattr(inode, name)
        if not name.startswith(_NAMESPACES):
            raise FUSEError(errno.EOPNOTSUPP)
        branch, local = self._branches.of(inode)
        for stored, value in branch.workspace.xattrs(local):
            if stored == name:
                return value
        if name.startswith(_OWN):
            told = self._fs.branch_xattr(branch, local, name[len(_OWN) :])
            if told is not None:
                return told
        raise FUSEError(ENOATTR)

    @handler("listxattr")
    async def listxattr(self, inode: int, ctx: RequestContext) -> list[bytes]:
        """Answers the names of the stored extended attributes."""
        if not self._branches.has(inode):
            return self._fs.xattrs(inode)
        branch, local = self._branches.of(inode)
        return [name for name, _ in branch.workspace.xattrs(local)]

    @handler("setxattr")
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """Sets an extended attribute."""
        branch, local = self._of(inode)
        if not name.startswith(_NAMESPACES) or name.startswith(_OWN):
            raise FUSEError(errno.EOPNOTSUPP)
        if name in _NAMESPACES:
            raise FUSEError(errno.EINVAL)
        branch.workspace.overlay.set_xattr(local, name, value)

    @handler("removexattr")
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        """Removes an extended attribute."""
        branch, local = self._of(inode)
        if not name.startswith(_NAMESPACES):
            raise FUSEError(errno.EOPNOTSUPP)
        branch.workspace.overlay.remove_xattr(local, name)

    # -- files -----------------------------------------------------------------------------------

    @handler("open")
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Opens a file; the kernel keeps its pages, since it sees every change."""
        if not self._branches.has(inode):
            return FileInfo(fh=self._fs.open(inode, flags), keep_cache=True)
        branch, local = self._branches.of(inode)
        if flags & os.O_TRUNC:
            branch.workspace.overlay.set_attributes(local, size=0)
        branch.workspace.files.open(local)
        return FileInfo(fh=inode, keep_cache=True)

    @handler("create")
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Makes a file and opens it."""
        branch, parent = self._of(parent_inode)
        mode = modes.S_IFREG | mode & 0o7777
        workspace = branch.workspace
        number = workspace.overlay.make(parent, name, mode, ctx.uid, ctx.gid)
        workspace.files.open(number)
        attributes = self._stat(branch, workspace.stat(number))
        return FileInfo(fh=attributes.st_ino, keep_cache=True), attributes

    @handler("read")
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Answers bytes of a file."""
        if self._branches.has(fh):
            branch, local = self._branches.of(fh)
            return branch.workspace.files.read(local, off, size)
        return await self._read(fh, off, size)

    @handler("write")
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Writes bytes of a file."""
        branch, local = self._of(fh)
        return branch.workspace.files.write(branch.workspace.overlay.changes, local, off, buf)

    async def release(self, fh: int) -> None:
        """Closes a file."""
        if not self._branches.has(fh):
            await super().release(fh)
            return
        try:
            branch, local = self._branches.of(fh)
            branch.workspace.files.release(branch.workspace.overlay.changes, local)
        except Exception as error:  # noqa: BLE001  (pyfuse3 would end the mount)
            if not is_expected(error):
                report("release", (fh,), error)

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
            return self._branches.opendir(inode)
        await self._prepare(inode, None)
        return self._fs.opendir(inode)

    @handler("readdir")
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """Answers entries of a directory with their attributes, as many as fit."""
        if not self._branches.has(fh):
            await self._readdir(fh, start_id, token)
            return
        branch, listing = self._branches.listing(fh)
        items = listing.items(start_id)
        offset = start_id
        try:
            for name, stat, offset in items:
                if not pyfuse3.readdir_reply(token, name, self._stat(branch, stat), offset):
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
            self._branches.releasedir(fh)
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
