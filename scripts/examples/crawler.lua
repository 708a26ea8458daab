-- Shows a fan-out of unknown size: each page that is found is fetched by a task of its own; a semaphore bounds how many
-- fetch at a time, and a timeout how long each may take. The site is a server in the same program.
-- Run: aloop crawler.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local AT_ONCE, PATIENCE_S = 3, 0.5

-- ---- the site: what each page links to ------------------------------------------------------------------------------

local SITE = {
  ["/"] = { "/news", "/about", "/archive" },
  ["/news"] = { "/", "/news/1", "/news/2", "/news/3" },
  ["/news/1"] = { "/news/2" },
  ["/news/2"] = { "/news/1", "/lost" },
  ["/news/3"] = {},
  ["/about"] = { "/" },
  ["/archive"] = { "/archive/endless" },
}

local function serve(reader, writer)
  local _ <close> = writer
  local path = (reader:readline() or ""):match("^GET (%S+)")
  if path == "/archive/endless" then
    reader:read() -- never answers: waits until the client has gone
    return
  end
  local links = SITE[path]
  writer:write(links and "HTTP/1.0 200 OK\r\n\r\n" or "HTTP/1.0 404 Not Found\r\n\r\n")
  for _, link in ipairs(links or {}) do
    writer:write(('<a href="%s">\n'):format(link))
  end
  writer:drain()
end

-- ---- the crawler ----------------------------------------------------------------------------------------------------

-- The page's status and text; TimeoutError if it takes too long.
local function fetch(port, path)
  local _ <close> = aloop.timeout(PATIENCE_S)
  local reader, writer = aloop.open_connection("127.0.0.1", port)
  local _ <close> = writer
  writer:write(("GET %s HTTP/1.0\r\n\r\n"):format(path))
  writer:drain()
  local answer = reader:read()
  return answer:match("^HTTP/1.0 (%d+)"), answer
end

-- Fetches all that can be reached from a path. pages: path → status, or the error's text; most: how many at a time.
local function crawl(port, start)
  local pages, busy, result = {}, 0, { most = 0 }
  result.pages = pages
  local slots = aloop.Semaphore(AT_ONCE)
  local group <close> = aloop.TaskGroup()

  local function visit(path)
    if pages[path] then return end
    pages[path] = "waits"
    group:create_task(function()
      local slot <close> = slots:acquire()
      busy = busy + 1
      result.most = math.max(result.most, busy)
      local ok, status, text = aloop.try(fetch, port, path)
      busy = busy - 1
      slot:release() -- what follows needs none
      pages[path] = ok and status or tostring(status)
      for link in (text or ""):gmatch('href="(.-)"') do visit(link) end
    end)
  end

  visit(start)
  return result -- once the group has waited for its tasks
end

local server <close> = aloop.start_server(serve, "127.0.0.1", 0)
local result = crawl(server.sockets[1]:getsockname().port, "/")
local paths = {}
for path in pairs(result.pages) do paths[#paths + 1] = path end
table.sort(paths)
for _, path in ipairs(paths) do print(result.pages[path], path) end
print(("%d pages, at most %d at a time"):format(#paths, result.most))
