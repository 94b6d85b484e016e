/**
 * Terminal sessions for VibeTunnel from Bun, on libvt_fwd, the library that Python uses too.
 */

import { dlopen, suffix } from "bun:ffi";
import { existsSync } from "node:fs";
import { join } from "node:path";

/** Every export of the library with the types of vt_fwd.h; `pyplue.ffi` has the same. */
export const symbols = {
  vt_fwd_last_error: { args: [], returns: "i32" },
  vt_fwd_last_message: { args: [], returns: "cstring" },
  vt_fwd_needed: { args: [], returns: "u64" },
  vt_fwd_error_name: { args: ["i32"], returns: "cstring" },
  vt_fwd_version: { args: [], returns: "cstring" },
  vt_fwd_start: { args: ["ptr", "u64"], returns: "u32" },
  vt_fwd_session_id: { args: ["u32", "ptr", "u64"], returns: "i64" },
  vt_fwd_session_pid: { args: ["u32"], returns: "i32" },
  vt_fwd_wait: { args: ["u32", "i64"], returns: "i32" },
  vt_fwd_stop: { args: ["u32"], returns: "i32" },
  vt_fwd_kill: { args: ["u32", "u32"], returns: "i32" },
  vt_fwd_close: { args: ["u32"], returns: "bool" },
  vt_fwd_running: { args: [], returns: "u32" },
  vt_fwd_frame_encode: { args: ["u32", "ptr", "u64", "ptr", "u64"], returns: "i64" },
  vt_fwd_decoder_create: { args: [], returns: "u32" },
  vt_fwd_decoder_destroy: { args: ["u32"], returns: "bool" },
  vt_fwd_decoder_next: { args: ["u32", "ptr", "u64", "ptr", "u64", "ptr"], returns: "i32" },
  vt_fwd_cast_create: { args: ["ptr", "u32", "u32", "i64", "ptr", "ptr", "u64"], returns: "u32" },
  vt_fwd_cast_output: { args: ["u32", "u64", "ptr", "u64"], returns: "i32" },
  vt_fwd_cast_input: { args: ["u32", "u64", "ptr", "u64"], returns: "i32" },
  vt_fwd_cast_resize: { args: ["u32", "u64", "u32", "u32"], returns: "i32" },
  vt_fwd_cast_marker: { args: ["u32", "u64", "ptr"], returns: "i32" },
  vt_fwd_cast_clear_offset: { args: ["u32"], returns: "i64" },
  vt_fwd_cast_end: { args: ["u32", "u64", "u32", "ptr"], returns: "i32" },
  vt_fwd_filter_create: { args: [], returns: "u32" },
  vt_fwd_filter_destroy: { args: ["u32"], returns: "bool" },
  vt_fwd_filter_write: { args: ["u32", "ptr", "u64", "ptr", "u64"], returns: "i64" },
  vt_fwd_filter_end: { args: ["u32", "ptr", "u64"], returns: "i64" },
  vt_fwd_session_parse: { args: ["ptr", "ptr", "u64", "ptr", "u64"], returns: "i64" },
  vt_fwd_session_read: { args: ["ptr", "ptr", "u64"], returns: "i64" },} as const;

/** The library file: $VT_FWD_LIBRARY, or the one that this source tree has built. */
export const libraryPath = findLibrary();

function findLibrary(): string {
  const given = process.env["VT_FWD_LIBRARY"];
  if (given) return given;
  const file = `libvt_fwd.${suffix}`;
  const folders = ["../pyplue/_native", "../zig-out/lib", "../zig/vt-fwd/zig-out/lib"];
  const found = folders.map((folder) => join(import.meta.dir, folder, file)).find(existsSync);
  if (found) return found;
  throw new Error(`${file} is not built: run "zig build" or set VT_FWD_LIBRARY to its path`);
}

const native = dlopen(libraryPath, symbols).symbols;

/** Version of the library, for example "0.1.0". */
export const version = String(native.vt_fwd_version());
